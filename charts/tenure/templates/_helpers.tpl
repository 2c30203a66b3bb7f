{{- define "tenure.namespace" -}}{{ .Release.Namespace }}{{- end -}}

{{/* A file of deploy/, with the operator in the release's namespace: there the name is a literal, in expressions too. */}}
{{- define "tenure.file" -}}
{{- .context.Files.Get .path | replace "tenure-system" .context.Release.Namespace -}}
{{- end -}}

{{- define "tenure.labels" -}}
app.kubernetes.io/name: tenure
app.kubernetes.io/part-of: tenure
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "tenure.image" -}}
{{- $name := .Values.image.repository -}}
{{- with .Values.image.registry }}{{- $name = printf "%s/%s" . $name -}}{{ end -}}
{{- if .Values.image.digest -}}
{{ $name }}@{{ .Values.image.digest }}
{{- else -}}
{{ $name }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{/* "true" where the API server writes by, grantedBy and requestedBy itself. */}}
{{- define "tenure.stamped" -}}
{{- if eq .Values.stamps "Auto" -}}
{{- .Capabilities.APIVersions.Has "admissionregistration.k8s.io/v1/MutatingAdmissionPolicy" -}}
{{- else -}}
{{- eq .Values.stamps "Always" -}}
{{- end -}}
{{- end -}}

{{- define "tenure.priorityClassName" -}}
{{- if .Values.priorityClass.create }}tenure{{ else }}{{ .Values.priorityClass.name }}{{ end -}}
{{- end -}}

{{/* "true" where the namespace is graded as the platform's: nobody is asked to own what is there. */}}
{{- define "tenure.isPlatform" -}}
{{- or (hasPrefix "kube-" .name) (eq .name .context.Release.Namespace) (has .name .context.Values.platformNamespaces) -}}
{{- end -}}

{{/* Where `helm test` makes its identity, "" where the operator looks nowhere. */}}
{{- define "tenure.testNamespace" -}}
{{- $found := .Values.test.namespace -}}
{{- if and (not $found) (not .Values.scopedNamespaces) }}{{ $found = "default" }}{{ end -}}
{{- range .Values.scopedNamespaces -}}
{{- if and (not $found) (ne (include "tenure.isPlatform" (dict "name" . "context" $)) "true") }}{{ $found = . }}{{ end -}}
{{- end -}}
{{- $found -}}
{{- end -}}

{{- define "tenure.podSecurity" -}}
runAsNonRoot: true
runAsUser: 64310
runAsGroup: 64310
fsGroup: 64310
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "tenure.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* A container of a hook, with its arguments. */}}
{{- define "tenure.hookContainer" -}}
{{- with .context.Values.image.pullSecrets }}
imagePullSecrets:{{ toYaml . | nindent 0 }}
{{- end }}
restartPolicy: Never
securityContext:{{ include "tenure.podSecurity" .context | nindent 2 }}
{{- with .context.Values.nodeSelector }}
nodeSelector:{{ toYaml . | nindent 2 }}
{{- end }}
{{- with .context.Values.tolerations }}
tolerations:{{ toYaml . | nindent 0 }}
{{- end }}
containers:
- name: tenure
  image: {{ include "tenure.image" .context }}
  imagePullPolicy: {{ .context.Values.image.pullPolicy }}
  args:{{ toYaml .arguments | nindent 2 }}
  env:
  - {name: TENURE_OPERATOR_NAMESPACE, value: {{ include "tenure.namespace" .context | quote }}}
  terminationMessagePolicy: FallbackToLogsOnError
  securityContext:{{ include "tenure.containerSecurity" .context | nindent 4 }}
  resources:
    requests: {cpu: 50m, memory: 96Mi}
    limits: {memory: 256Mi}
{{- end -}}

{{/* Names of the admission policies of every file, comma-separated: those that a hook may take off. */}}
{{- define "tenure.policyNames" -}}
{{- $names := list -}}
{{- range $path, $_ := .Files.Glob "files/deploy/*.yaml" -}}
{{- range $text := splitList "\n---\n" ($.Files.Get $path) -}}
{{- $one := fromYaml $text -}}
{{- if hasSuffix "AdmissionPolicy" ($one.kind | default "") }}{{ $names = append $names $one.metadata.name }}{{ end -}}
{{- end -}}
{{- end -}}
{{- join "," $names -}}
{{- end -}}

{{/* A list of policy rules, of which those on cluster-scoped resources (wide) or on namespaced ones are left. */}}
{{- define "tenure.rules" -}}
{{- $clusterScoped := list "namespaces" "clusterroles" "clusterrolebindings" "customresourcedefinitions" "validatingadmissionpolicies" "validatingadmissionpolicybindings" "identityowners" "governancepolicies" "selfsubjectaccessreviews" "selfsubjectrulesreviews" "selfsubjectreviews" "subjectaccessreviews" -}}
{{- $left := list -}}
{{- range $rule := .rules -}}
{{- $resources := list -}}
{{- range $rule.resources -}}
{{- if eq (has (first (splitList "/" .)) $clusterScoped) $.wide }}{{ $resources = append $resources . }}{{ end -}}
{{- end -}}
{{- if $resources }}{{ $left = append $left (merge (dict "resources" $resources) $rule) }}{{ end -}}
{{- end -}}
{{- toYaml $left -}}
{{- end -}}
