{{/* Cluster-wide objects of two releases must not have one name. */}}
{{- define "triggerhub.name" -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- end }}

{{- define "triggerhub.secret" -}}
{{- .Values.admin.existingSecret | default (printf "%s-admin" (include "triggerhub.name" .)) -}}
{{- end }}

{{- define "triggerhub.image" -}}
{{- printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) -}}
{{- end }}

{{- define "triggerhub.selector" -}}
app.kubernetes.io/name: triggerhub
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* Also those of volume claims, which can never change: nothing of a version. */}}
{{- define "triggerhub.fixedLabels" -}}
{{ include "triggerhub.selector" . }}
app.kubernetes.io/part-of: triggerhub
{{- end }}

{{- define "triggerhub.labels" -}}
{{ include "triggerhub.fixedLabels" . }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "triggerhub.kindRules" -}}
- apiGroups: [triggerhub.dev]
  resources: [functions, crontriggers, httptriggers, kafkatriggers, kinesistriggers, natstriggers]
  verbs: [list, watch]
- apiGroups: [triggerhub.dev]
  resources: [functions/status, crontriggers/status, httptriggers/status, kafkatriggers/status, kinesistriggers/status, natstriggers/status]
  verbs: [patch]
- apiGroups: [triggerhub.dev]  # for onFunctionDelete
  resources: [crontriggers, httptriggers, kafkatriggers, kinesistriggers, natstriggers]
  verbs: [delete]
- apiGroups: [triggerhub.dev]  # for the finalizer: kinds with `cleanup` in their source
  resources: [kafkatriggers, kinesistriggers, natstriggers]
  verbs: [patch]
{{- end }}

{{- define "triggerhub.referenceRules" -}}
- apiGroups: [""]
  resources: [services]
  verbs: [list, watch]
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [list, watch]
- apiGroups: [""]  # only those that a trigger names, one by one
  resources: [secrets, configmaps]
  verbs: [list, watch]
- apiGroups: [""]
  resources: [events]
  verbs: [create, patch]
{{- end }}

{{- define "triggerhub.exposureRules" -}}
- apiGroups: [networking.k8s.io]
  resources: [ingresses]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [services]  # names for the hub's, in other namespaces
  verbs: [get, create, patch, delete]
- apiGroups: [gateway.networking.k8s.io]
  resources: [httproutes, referencegrants]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [gateway.networking.k8s.io]
  resources: [gateways]
  verbs: [list, watch]
{{- end }}
