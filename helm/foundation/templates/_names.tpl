{{- define "foundation.selector" -}}
app.kubernetes.io/name: foundation
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "foundation.labels" -}}
{{ include "foundation.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end -}}
