{{- define "gke.selector" -}}
app.kubernetes.io/name: gke
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "gke.labels" -}}
{{ include "gke.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end -}}
