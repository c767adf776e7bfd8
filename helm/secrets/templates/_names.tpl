{{- define "secrets.selector" -}}
app.kubernetes.io/name: secrets
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "secrets.labels" -}}
{{ include "secrets.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end -}}
