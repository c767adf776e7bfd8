{{- /* Of every object. Call with (dict "root" $ "component" "gateway"), for a track also "track". */ -}}
{{- define "model-serving.labels" -}}
{{ include "model-serving.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
{{- end -}}

{{- define "model-serving.selector" -}}
app.kubernetes.io/name: model-serving
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- with .track }}
millrace.dev/track: {{ . }}
{{- end }}
{{- end -}}

{{- /* Repository, and tag or digest. Call with (dict "image" .Values.gateway.image "repository" DEFAULT "tag" DEFAULT). */ -}}
{{- define "model-serving.image" -}}
{{ .image.repository | default .repository }}{{ if .image.digest }}@{{ .image.digest }}{{ else }}:{{ .image.tag | default .tag }}{{ end }}
{{- end -}}

{{- define "model-serving.ourImage" -}}
{{ include "model-serving.image" (dict "image" .Values.gateway.image "repository" "serving" "tag" .Chart.AppVersion) }}
{{- end -}}

{{- define "model-serving.serverImage" -}}
{{- if eq .Values.server.kind "tensorflow" -}}
{{ include "model-serving.image" (dict "image" .Values.server.image "repository" "tensorflow/serving" "tag" "2.20.0") }}
{{- else -}}
{{ include "model-serving.image" (dict "image" .Values.server.image "repository" "model-server" "tag" .Chart.AppVersion) }}
{{- end -}}
{{- end -}}

{{- /* Pod Security Standard `restricted`, and a little more: nothing in an image is written to. */ -}}
{{- define "model-serving.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "model-serving.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{- /* Where the pods of a Deployment run. Call with (dict "root" $ "component" … "values" .Values.gateway), for a track also "track" and "gpu". */ -}}
{{- define "model-serving.placement" -}}
# Apart, if there is room: neither a node nor a zone that is lost takes all replicas with it.
topologySpreadConstraints:
{{- range $key := list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
- topologyKey: {{ $key }}
  maxSkew: 1
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels:
      {{- include "model-serving.selector" $ | nindent 6 }}
  matchLabelKeys: [pod-template-hash]
{{- end }}
{{- with .values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- $nodes := deepCopy .values.nodeSelector }}
{{- $tolerations := .values.tolerations }}
{{- if .gpu }}
{{- if .gpu.count }}
{{- $tolerations = append $tolerations (dict "key" .gpu.resource "operator" "Exists" "effect" "NoSchedule") }}
{{- with .gpu.accelerator }}
{{- $_ := set $nodes "cloud.google.com/gke-accelerator" . }}
{{- end }}
{{- end }}
{{- end }}
{{- with $nodes }}
nodeSelector: {{ toJson . }}
{{- end }}
{{- with $tolerations }}
tolerations: {{ toJson . }}
{{- end }}
{{- with .root.Values.pullSecrets }}
imagePullSecrets: {{ toJson . }}
{{- end }}
{{- end -}}

{{- /* A volume of a claim or of a bucket. Call with (dict "name" … "kind" … "from" .Values.store "readOnly" true). */ -}}
{{- define "model-serving.volume" -}}
{{- if eq .kind "claim" }}
- name: {{ .name }}
  persistentVolumeClaim: {claimName: {{ required (printf "Name the claim of %s" .name) .from.claim.name }}{{ if .readOnly }}, readOnly: true{{ end }}}
{{- else if eq .kind "gcs" }}
{{- $options := compact (list .from.bucket.mountOptions (.from.bucket.path | empty | ternary "" (printf "only-dir=%s" .from.bucket.path)) "uid=65532" "gid=65532") }}
- name: {{ .name }}
  csi:
    driver: gcsfuse.csi.storage.gke.io
    readOnly: {{ .readOnly }}
    volumeAttributes: {bucketName: {{ required (printf "Name the bucket of %s" .name) .from.bucket.name }}, mountOptions: {{ join "," $options | quote }}}
{{- end }}
{{- end -}}

{{- /* The prediction log as a pod has it. Who writes to it also has a journal, in which labels wait that were acknowledged and are not part of the log
yet: it needs a file system that locks, which a mounted bucket is not. Call each with (dict "root" $ "readOnly" false). */ -}}
{{- define "model-serving.logMounts" -}}
{{- $log := .root.Values.gateway.predictions -}}
- {name: predictions, mountPath: /predictions{{ if .readOnly }}, readOnly: true{{ end }}{{ if and (eq $log.kind "claim") $log.claim.path }}, subPath: {{ $log.claim.path }}{{ end }}}
{{- if and (not .readOnly) (include "model-serving.hasJournal" .root) }}
- {name: journal, mountPath: /journal{{ if and $log.journal.name $log.journal.path }}, subPath: {{ $log.journal.path }}{{ end }}}
{{- end }}
{{- end -}}

{{- define "model-serving.logVolumes" -}}
{{- $log := .root.Values.gateway.predictions -}}
{{- if eq $log.kind "none" -}}
- {name: predictions, emptyDir: {}}
{{- else -}}
{{- include "model-serving.volume" (dict "name" "predictions" "kind" $log.kind "from" $log "readOnly" (and .readOnly (eq $log.kind "gcs"))) | trim }}
{{- end }}
{{- if and (not .readOnly) (include "model-serving.hasJournal" .root) }}
{{- if $log.journal.name }}
- {name: journal, persistentVolumeClaim: {claimName: {{ $log.journal.name }}}}
{{- else }}
# A container that dies finds its journal again; a node that is lost takes a few seconds of labels along.
- {name: journal, emptyDir: {}}
{{- end }}
{{- end }}
{{- end -}}

{{- define "model-serving.hasJournal" -}}
{{- if or (eq .Values.gateway.predictions.kind "gcs") .Values.gateway.predictions.journal.name }}yes{{ end }}
{{- end -}}

{{- define "model-serving.journalVariable" -}}
{{- if include "model-serving.hasJournal" . -}}
- {name: MILLRACE_LABEL_JOURNAL, value: /journal}
{{- end }}
{{- end -}}

{{- /* What versions carry beside their graphs, for who does not serve them: the store itself, or copies of the tracks' versions where it cannot be
mounted. */ -}}
{{- define "model-serving.storeFolder" -}}
{{ eq .Values.store.kind "gcs-copy" | ternary "/models" "/store" }}
{{- end -}}

{{- define "model-serving.storeMount" -}}
{{- if eq .Values.store.kind "gcs-copy" -}}
- {name: models, mountPath: /models, readOnly: true}
{{- else -}}
- {name: store, mountPath: /store, readOnly: true{{ if and (eq .Values.store.kind "claim") .Values.store.claim.path }}, subPath: {{ .Values.store.claim.path }}{{ end }}}
{{- end }}
{{- end -}}

{{- define "model-serving.storeVolume" -}}
{{- if eq .Values.store.kind "gcs-copy" -}}
- {name: models, emptyDir: {}}
{{- else -}}
{{- include "model-serving.volume" (dict "name" "store" "kind" .Values.store.kind "from" .Values.store "readOnly" true) | trim }}
{{- end }}
{{- end -}}

{{- define "model-serving.fetchAll" -}}
{{- $seen := dict }}
{{- range $track, $values := .Values.tracks }}
{{- $version := int64 $values.version | toString }}
{{- if and $values.enabled (not (hasKey $seen $version)) }}
{{- $_ := set $seen $version true }}
{{ include "model-serving.fetch" (dict "root" $ "values" $values "name" (printf "fetch-%s" $track)) }}
{{- end }}
{{- end }}
{{- end -}}

{{- /* Annotations of a pod. Call with (dict "annotations" .Values.gateway.annotations "kinds" (list KIND …)), of its volumes. */ -}}
{{- define "model-serving.annotations" -}}
{{- $found := deepCopy .annotations }}
{{- if has "gcs" .kinds }}{{ $_ := set $found "gke-gcsfuse/volumes" "true" }}{{ end }}
{{- with $found -}}
annotations: {{ toJson . }}
{{- end }}
{{- end -}}

{{- /* The container that brings a version into the pod. Call with (dict "root" $ "values" TRACK). */ -}}
{{- define "model-serving.fetch" -}}
{{- $store := .root.Values.store }}
{{- $source := "/store" }}
{{- if eq $store.kind "gcs-copy" }}
{{- $source = printf "gs://%s%s" (required "Name the store's bucket: store.bucket.name" $store.bucket.name) ($store.bucket.path | empty | ternary "" (printf "/%s" $store.bucket.path)) }}
{{- end -}}
- name: {{ .name | default "fetch" }}
  image: {{ include "model-serving.ourImage" .root }}
  imagePullPolicy: {{ .root.Values.gateway.image.pullPolicy }}
  args:
  - fetch
  - {{ .root.Values.model.name | quote }}
  - {{ int64 .values.version | quote }}
  - --store={{ $source }}
  - --to=/models
  {{- with .values.digest }}
  - --digest={{ . }}
  {{- end }}
  securityContext:
    {{- include "model-serving.containerSecurity" .root | nindent 4 }}
  resources: {{ toJson $store.resources }}
  volumeMounts:
  - {name: models, mountPath: /models}
  - {name: tmp, mountPath: /tmp}
  {{- if ne $store.kind "gcs-copy" }}
  - {name: store, mountPath: /store, readOnly: true{{ if and (eq $store.kind "claim") $store.claim.path }}, subPath: {{ $store.claim.path }}{{ end }}}
  {{- end }}
{{- end -}}

{{- /* What it needs. */ -}}
{{- define "model-serving.fetchVolumes" -}}
{{- $local := dict }}
{{- with .Values.store.local.medium }}{{ $_ := set $local "medium" . }}{{ end }}
{{- with .Values.store.local.sizeLimit }}{{ $_ := set $local "sizeLimit" . }}{{ end -}}
- {name: models, emptyDir: {{ toJson $local }}}
- {name: tmp, emptyDir: {sizeLimit: 64Mi}}
{{- include "model-serving.volume" (dict "name" "store" "kind" .Values.store.kind "from" .Values.store "readOnly" true) }}
{{- end -}}

{{- /* Names, and the API server: 443 is its Service's port, 6443 the usual one of its own. */ -}}
{{- define "model-serving.dns" -}}
- ports: [{port: 53, protocol: UDP}, {port: 53, protocol: TCP}]
{{- end -}}

{{- /* A bucket, and who says who we are: the metadata server, by either of its addresses on GKE. */ -}}
{{- define "model-serving.bucketEgress" -}}
{{- if .Values.networkPolicy.store }}
{{- toYaml .Values.networkPolicy.store }}
{{- else -}}
- ports: [{port: 443, protocol: TCP}]
- to: [{ipBlock: {cidr: 169.254.169.254/32}}, {ipBlock: {cidr: 169.254.169.252/32}}]
  ports: [{port: 80, protocol: TCP}, {port: 988, protocol: TCP}]
{{- end }}
{{- end -}}
