{{- define "weda-connector.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimAll "-" }}
{{- end }}

{{/* At most 50 letters: a StatefulSet's name goes with a hash into a label of its pods. Without dots, which no Service may have. */}}
{{- define "weda-connector.fullname" -}}
{{- $name := include "weda-connector.name" . }}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) }}
{{- default $full .Values.fullnameOverride | replace "." "-" | trunc 50 | trimAll "-" }}
{{- end }}

{{/* What never changes in the life of a release: selectors are made of it. */}}
{{- define "weda-connector.selector" -}}
app.kubernetes.io/name: {{ include "weda-connector.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{/* Of the pod of `helm test`. */}}
{{- define "weda-connector.testerLabels" -}}
{{ include "weda-connector.selector" . }}
app.kubernetes.io/component: test
{{- end }}

{{/* All labels of an object, each once: of `root`, with its `component` where it is one, and `more` that the values give it alone. */}}
{{- define "weda-connector.labels" -}}
{{- $own := include "weda-connector.ownLabels" .root | fromYaml }}
{{- with .component }}
{{- $_ := set $own "app.kubernetes.io/component" . }}
{{- end }}
{{- toYaml (merge $own (.more | default dict) (.root.Values.commonLabels | default dict)) }}
{{- end }}

{{/* The labels by which selectors find the pods of a component of `root`. */}}
{{- define "weda-connector.podSelector" -}}
{{ include "weda-connector.selector" .root }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* The labels of a pod of `root`, with `more` that the values give it alone. None of them changes with the version of the chart: a
change in a pod's labels replaces the pod. */}}
{{- define "weda-connector.podLabels" -}}
{{- $own := include "weda-connector.podSelector" . | fromYaml }}
{{- toYaml (merge $own (.more | default dict) (.root.Values.commonLabels | default dict)) }}
{{- end }}

{{/* The annotations of an object of `root`, with its `own` and `more` that the values give it alone; nothing where there is none. */}}
{{- define "weda-connector.annotations" -}}
{{- with merge (dict) (.own | default dict) (.more | default dict) (.root.Values.commonAnnotations | default dict) -}}
annotations:
  {{- include "weda-connector.tpl" (dict "value" . "root" $.root) | nindent 2 }}
{{- end }}
{{- end }}

{{/* Of an object that exists only for the time before an install or upgrade, in the order of its weight. */}}
{{- define "weda-connector.hook" -}}
helm.sh/hook: pre-install,pre-upgrade
helm.sh/hook-weight: {{ . | quote }}
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end }}

{{/* A `value` as text, the templates in it rendered with `root`. */}}
{{- define "weda-connector.tpl" -}}
{{- $text := kindIs "string" .value | ternary .value (toYaml .value) }}
{{- if contains "{{" $text }}
{{- tpl $text .root }}
{{- else }}
{{- $text }}
{{- end }}
{{- end }}

{{/* A size of the settings or of Kubernetes, such as 512MiB or 1.5Gi, in bytes. */}}
{{- define "weda-connector.bytes" -}}
{{- $factors := dict "" 1 "K" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "P" 1e15 "E" 1e18 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 "Pi" 1125899906842624 "Ei" 1152921504606846976 }}
{{- if kindIs "string" . }}
{{- $unit := trim . | trimSuffix "B" | regexFind "[A-Za-z]*$" }}
{{- mulf (regexFind "^[0-9.]+" (trim .) | float64) (get $factors $unit) | ceil | int64 }}
{{- else }}
{{- int64 . }}
{{- end }}
{{- end }}

{{/* A duration of Prometheus, such as 1m30s, in milliseconds. */}}
{{- define "weda-connector.milliseconds" -}}
{{- $sum := 0 }}
{{- range regexFindAll "[0-9]+(ms|[smhd])" . -1 }}
{{- $unit := regexFind "[a-z]+$" . }}
{{- $sum = add $sum (mul (trimSuffix $unit . | int64) (get (dict "ms" 1 "s" 1000 "m" 60000 "h" 3600000 "d" 86400000) $unit)) }}
{{- end }}
{{- $sum }}
{{- end }}

{{- define "weda-connector.ownLabels" -}}
{{ include "weda-connector.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" | quote }}
{{- end }}

{{- define "weda-connector.image" -}}
{{- $repository := .Values.image.repository }}
{{- with (.Values.global | default dict).imageRegistry }}
{{- $parts := splitList "/" $repository }}
{{- if and (gt (len $parts) 1) (regexMatch "[.:]|^localhost$" (first $parts)) }}
{{- $parts = rest $parts }}
{{- end }}
{{- $repository = printf "%s/%s" (trimSuffix "/" .) (join "/" $parts) }}
{{- end }}
{{- if .Values.image.digest -}}
{{ $repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ $repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end }}
{{- end }}

{{- define "weda-connector.serviceAccountName" -}}
{{- default (ternary (include "weda-connector.fullname" .) "default" .Values.serviceAccount.create) .Values.serviceAccount.name }}
{{- end }}

{{/* The configuration file. */}}
{{- define "weda-connector.config" -}}
config.yaml: |
{{- toYaml .Values.settings | nindent 2 }}
{{- end }}

{{/* preStop, what the connector takes for its shutdown, and some seconds for the end of the process. */}}
{{- define "weda-connector.gracePeriod" -}}
{{- $grace := dig "receiver" "shutdown_grace_seconds" 25 .Values.settings }}
{{- add .Values.preStopSeconds (ceil $grace) 10 }}
{{- end }}

{{- define "weda-connector.operationsPort" -}}
{{- dig "operations" "port" 9464 .Values.settings | int }}
{{- end }}

{{- define "weda-connector.receiverPort" -}}
{{- dig "receiver" "port" 8080 .Values.settings | int }}
{{- end }}

{{/* How a listener is spoken to: `root`, and `listener`: receiver or operations. */}}
{{- define "weda-connector.scheme" -}}
{{- ternary "https" "http" (dig .listener "tls_certificate" "" .root.Values.settings | empty | not) }}
{{- end }}

{{/* A probe of the operations listener, at a path; the kubelet looks at no certificate. */}}
{{- define "weda-connector.probe" -}}
httpGet: {path: {{ .path }}, port: operations, scheme: {{ include "weda-connector.scheme" (dict "root" .root "listener" "operations") | upper }}}
{{- end }}

{{/* The settings that come from Secrets, as in the values; nothing where there is none. */}}
{{- define "weda-connector.secretSettings" -}}
{{- range $setting, $secret := .Values.secretSettings }}
{{- if $secret.existingSecret }}
{{ $setting }}: {existingSecret: {{ include "weda-connector.tpl" (dict "value" $secret.existingSecret "root" $) | quote }}, key: {{ $secret.key | quote }}}
{{- end }}
{{- end }}
{{- with .Values.sharedJournal }}
{{- if .enabled }}
WEDA_JOURNAL__URL: {existingSecret: {{ include "weda-connector.tpl" (dict "value" .existingSecret "root" $) | quote }}, key: {{ .key | quote }}}
{{- end }}
{{- end }}
{{- end }}

{{/* Of a pod that runs before the install: a ServiceAccount of the chart's does not exist by then, one that somebody else made does. */}}
{{- define "weda-connector.hookServiceAccount" -}}
{{- if not .Values.serviceAccount.create -}}
serviceAccountName: {{ include "weda-connector.serviceAccountName" . | quote }}
{{- end }}
{{- end }}

{{/* What is the same in every pod. */}}
{{- define "weda-connector.podBasics" -}}
automountServiceAccountToken: false
enableServiceLinks: false # Kubernetes would set WEDA_CONNECTOR_PORT and its like, which are no settings
{{- $pull := .Values.imagePullSecrets | default list }}
{{- range (.Values.global | default dict).imagePullSecrets }}
{{- $pull = append $pull (kindIs "string" . | ternary (dict "name" .) .) }}
{{- end }}
{{- with $pull }}
imagePullSecrets:
  {{- toYaml (uniq .) | nindent 2 }}
{{- end }}
securityContext:
  {{- toYaml .Values.podSecurityContext | nindent 2 }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- range $name := list "runtimeClassName" "schedulerName" "dnsPolicy" }}
{{- with get $.Values $name }}
{{ $name }}: {{ . | quote }}
{{- end }}
{{- end }}
{{- with .Values.dnsConfig }}
dnsConfig:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.hostAliases }}
hostAliases:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "weda-connector.containerBasics" -}}
image: {{ include "weda-connector.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  {{- toYaml .Values.securityContext | nindent 2 }}
resources:
  {{- toYaml .Values.resources | nindent 2 }}
{{- $secrets := include "weda-connector.secretSettings" . | fromYaml }}
{{- if or $secrets .Values.extraEnv (not .withoutConfig) }}
env:
  {{- if not .withoutConfig }}
  - name: WEDA_CONFIG # for every command that is run in the container
    value: /etc/weda-connector/config/config.yaml
  {{- end }}
  {{- range $setting, $_ := $secrets }}
  - name: {{ $setting }}_FILE
    value: /etc/weda-connector/secrets/{{ $setting }}
  {{- end }}
  {{- with .Values.extraEnv }}
  {{- include "weda-connector.tpl" (dict "value" . "root" $) | nindent 2 }}
  {{- end }}
{{- end }}
{{- with .Values.extraEnvFrom }}
envFrom:
  {{- include "weda-connector.tpl" (dict "value" . "root" $) | nindent 2 }}
{{- end }}
{{- end }}

{{- define "weda-connector.mounts" -}}
- name: config
  mountPath: /etc/weda-connector/config
  readOnly: true
{{ include "weda-connector.mountsWithoutConfig" . | trim }}
{{- end }}

{{- define "weda-connector.mountsWithoutConfig" -}}
{{- if include "weda-connector.secretSettings" . | fromYaml }}
- name: secrets
  mountPath: /etc/weda-connector/secrets
  readOnly: true
{{- end }}
{{- range $name, $_ := .Values.certificates }}
- name: certificates-{{ $name }}
  mountPath: /etc/weda-connector/certificates/{{ $name }}
  readOnly: true
{{- end }}
- name: tmp
  mountPath: /tmp
{{- with .Values.extraVolumeMounts }}
{{ include "weda-connector.tpl" (dict "value" . "root" $) }}
{{- end }}
{{- end }}

{{/* `root`, and `config`: the name of the ConfigMap with the configuration file. */}}
{{- define "weda-connector.volumes" -}}
- name: config
  configMap:
    name: {{ .config | quote }}
{{ include "weda-connector.volumesWithoutConfig" .root | trim }}
{{- end }}

{{- define "weda-connector.volumesWithoutConfig" -}}
{{- with include "weda-connector.secretSettings" . | fromYaml }}
- name: secrets
  projected:
    defaultMode: 0440
    sources:
      {{- range $setting, $secret := . }}
      - secret:
          name: {{ $secret.existingSecret | quote }}
          items:
            - key: {{ $secret.key | quote }}
              path: {{ $setting }}
      {{- end }}
{{- end }}
{{- range $name, $certificate := .Values.certificates }}
- name: certificates-{{ $name }}
  secret:
    secretName: {{ include "weda-connector.tpl" (dict "value" $certificate.existingSecret "root" $) | quote }}
    defaultMode: 0440
{{- end }}
- name: tmp
  emptyDir:
    sizeLimit: 64Mi
{{- with .Values.extraVolumes }}
{{ include "weda-connector.tpl" (dict "value" . "root" $) }}
{{- end }}
{{- end }}

{{- define "weda-connector.ipFamilies" -}}
{{- with .Values.service.ipFamilyPolicy -}}
ipFamilyPolicy: {{ . }}
{{- end }}
{{- with .Values.service.ipFamilies }}
ipFamilies:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
