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

{{- /* Which pods the gate is for, whether a policy or a webhook sets it. */ -}}
{{- define "gpu-queue.isQueued" -}}
- name: asks-for-a-gpu
  expression: |-
    {{- include "gpu-queue.asksForGpu" . | nindent 4 }}
# A gate on a bound pod is invalid; gpu-queue-no-bypass refuses such a pod with better words.
- name: not-bound
  expression: object.spec.?nodeName.orValue('') == ''
{{- end -}}

{{- /* Who sets the gate: the API server by itself where it can, else our webhook. */ -}}
{{- define "gpu-queue.admission" -}}
{{- if ne .Values.admission "auto" }}
{{- .Values.admission }}
{{- else if .Capabilities.APIVersions.Has "admissionregistration.k8s.io/v1/MutatingAdmissionPolicy" -}}
policy
{{- else -}}
webhook
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

{{- define "gpu-queue.image" -}}
{{ .Values.image.repository }}{{ if .Values.image.digest }}@{{ .Values.image.digest }}{{ else }}:{{ .Values.image.tag | default .Chart.AppVersion }}{{ end }}
{{- end -}}

{{- /* Of every object. Call with (dict "root" $ "component" "controller"). */ -}}
{{- define "gpu-queue.labels" -}}
{{ include "gpu-queue.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
{{- end -}}

{{- define "gpu-queue.selector" -}}
app.kubernetes.io/name: gpu-queue
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- /* Pod Security Standard `restricted`, and a little more: nothing in the image is written to. */ -}}
{{- define "gpu-queue.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "gpu-queue.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{- /* Where the pods of a Deployment run. Call with (dict "root" $ "component" "controller" "values" .Values.controller). */ -}}
{{- define "gpu-queue.placement" -}}
# Apart, if there is room: neither a node nor a zone that is lost takes all replicas with it.
topologySpreadConstraints:
{{- range $key := list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
- topologyKey: {{ $key }}
  maxSkew: 1
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels:
      {{- include "gpu-queue.selector" $ | nindent 6 }}
  matchLabelKeys: [pod-template-hash]
{{- end }}
{{- with .values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector: {{ toJson . }}
{{- end }}
{{- with .values.tolerations }}
tolerations: {{ toJson . }}
{{- end }}
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets: {{ toJson . }}
{{- end }}
{{- end -}}

{{- /* Names, and the API server: 443 is its Service's port, 6443 the usual one of its own. */ -}}
{{- define "gpu-queue.egress" -}}
- ports: [{port: 53, protocol: UDP}, {port: 53, protocol: TCP}]
- ports: [{port: 443, protocol: TCP}, {port: 6443, protocol: TCP}]
  {{- with .Values.networkPolicy.apiServer }}
  to: {{ toJson . }}
  {{- end }}
{{- end -}}

{{- /* A pod of ours that runs one module once. Call with (dict "root" $ "account" NAME "arguments" (list MODULE …)). */ -}}
{{- define "gpu-queue.hookPod" -}}
serviceAccountName: {{ .account }}
automountServiceAccountToken: true
enableServiceLinks: false
securityContext:
  {{- include "gpu-queue.podSecurity" .root | nindent 2 }}
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets: {{ toJson . }}
{{- end }}
{{- with .root.Values.controller.nodeSelector }}
nodeSelector: {{ toJson . }}
{{- end }}
{{- with .root.Values.controller.tolerations }}
tolerations: {{ toJson . }}
{{- end }}
containers:
- name: ask
  image: {{ include "gpu-queue.image" .root }}
  imagePullPolicy: {{ .root.Values.image.pullPolicy }}
  command: {{ toJson (concat (list "/usr/bin/python3" "-m") .arguments) }}
  securityContext:
    {{- include "gpu-queue.containerSecurity" .root | nindent 4 }}
  resources: {requests: {cpu: 10m, memory: 64Mi}, limits: {memory: 256Mi}}
{{- end -}}
