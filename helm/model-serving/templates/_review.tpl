{{- /* What the review page and the job that fills its queue have in common: the queue's database and the log. */ -}}
{{- define "model-serving.reviewWhere" -}}
- --workspace=/workspace
- --predictions=/predictions
{{- end -}}

{{- define "model-serving.reviewVariables" -}}
{{- include "model-serving.journalVariable" . }}
{{- if eq .Values.review.database.kind "postgresql" }}
- name: MILLRACE_DATABASE
  valueFrom: {secretKeyRef: {name: {{ .Values.review.database.secret.name }}, key: {{ .Values.review.database.secret.key }}}}
{{- end }}
{{- end -}}

{{- define "model-serving.reviewMounts" -}}
{{- $claim := .Values.review.database.claim -}}
- {name: workspace, mountPath: /workspace{{ if and (eq .Values.review.database.kind "sqlite") $claim.path }}, subPath: {{ $claim.path }}{{ end }}}
{{ include "model-serving.logMounts" (dict "root" . "readOnly" false) }}
- {name: tmp, mountPath: /tmp}
{{- end -}}

{{- define "model-serving.reviewVolumes" -}}
{{- if eq .Values.review.database.kind "sqlite" -}}
- {name: workspace, persistentVolumeClaim: {claimName: {{ .Values.review.database.claim.name }}}}
{{- else -}}
- {name: workspace, emptyDir: {sizeLimit: 64Mi}}
{{- end }}
{{ include "model-serving.logVolumes" (dict "root" . "readOnly" false) }}
- {name: tmp, emptyDir: {sizeLimit: 64Mi}}
{{- end -}}
