{{- define "team.selector" -}}
app.kubernetes.io/name: team
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "team.labels" -}}
{{ include "team.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end -}}
