{{- /* Conditions that several policies share. Label keys are those of gpuqueue/labels.py; a test compares them. */ -}}

{{- define "gpu-queue.controller" -}}
system:serviceaccount:{{ .Release.Namespace }}:{{ .Values.serviceAccount }}
{{- end -}}

{{- define "gpu-queue.isController" -}}
request.userInfo.username == '{{ include "gpu-queue.controller" . }}'
{{- end -}}

{{- define "gpu-queue.breaksGlass" -}}
'{{ .Values.breakGlassGroup }}' in request.userInfo.?groups.orValue([])
{{- end -}}

{{- /* Extended resources: limits hold them even where only requests were written. None of them, `0`, is not asking. */ -}}
{{- define "gpu-queue.asksForGpu" -}}
(object.spec.containers + object.spec.?initContainers.orValue([])).exists(c,
  c.?resources.limits.orValue({}).exists(name, {{ toJson .Values.gpuResources }}.exists(prefix, name.startsWith(prefix))
    && quantity(string(c.resources.limits[name])).isGreaterThan(quantity('0'))))
{{- if .Values.gateResourceClaims }}
|| size(object.spec.?resourceClaims.orValue([])) > 0
{{- end }}
{{- end -}}

{{- define "gpu-queue.inManagedNamespace" -}}
namespaceSelector:
  matchExpressions: [{key: gpu-queue.dev/managed, operator: In, values: ["true"]}]
{{- end -}}

{{- /* Objects that have our label or, before an update, had it. */ -}}
{{- define "gpu-queue.ofManagedObjects" -}}
objectSelector:
  matchExpressions: [{key: gpu-queue.dev/managed, operator: In, values: ["true"]}]
{{- end -}}
