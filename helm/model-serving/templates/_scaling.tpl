{{- /* How many pods there are, and how many may be taken at a time. */ -}}
{{- define "model-serving.scaling" }}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ .name }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "model-serving.labels" . | nindent 4 }}
spec:
  maxUnavailable: 1
  # A pod that does not answer anyway holds up no drain.
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "model-serving.selector" . | nindent 6 }}
{{- if .autoscaling.enabled }}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: {{ .name }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "model-serving.labels" . | nindent 4 }}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: {{ .name }}}
  minReplicas: {{ .autoscaling.min }}
  maxReplicas: {{ .autoscaling.max }}
  metrics:
  {{- if .autoscaling.cpu }}
  - type: Resource
    resource: {name: cpu, target: {type: Utilization, averageUtilization: {{ .autoscaling.cpu }}}}
  {{- end }}
  {{- if .autoscaling.inFlight }}
  - type: External
    external:
      metric: {name: millrace_gateway_in_flight, selector: {matchLabels: {{ toJson .load }}}}
      target: {type: AverageValue, averageValue: {{ .autoscaling.inFlight | quote }}}
  {{- end }}
{{- end }}
{{- end -}}
