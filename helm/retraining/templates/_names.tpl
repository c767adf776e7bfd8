{{- define "retraining.selector" -}}
app.kubernetes.io/name: retraining
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "retraining.labels" -}}
{{ include "retraining.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end -}}
