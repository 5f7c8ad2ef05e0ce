{{/* What renders and yet would not do what it seems to: each is refused in one line that names the value. */}}
{{- define "weda-connector.checks" -}}
{{- include "weda-connector.checkName" . }}
{{- include "weda-connector.checkReplicas" . }}
{{- include "weda-connector.checkLabels" . }}
{{- $elsewhere := include "weda-connector.elsewhere" . | fromJson }}
{{- include "weda-connector.checkVariables" (dict "root" . "elsewhere" $elsewhere) }}
{{- include "weda-connector.checkListeners" . }}
{{- include "weda-connector.checkService" . }}
{{- include "weda-connector.checkCertificates" . }}
{{- include "weda-connector.checkDrain" . }}
{{- include "weda-connector.checkExtras" . }}
{{- if not .Values.extraEnvFrom }}{{/* What comes from there nobody sees before the pods do. */}}
{{- include "weda-connector.checkMissing" (dict "root" . "elsewhere" $elsewhere) }}
{{- end }}
{{- end }}

{{- define "weda-connector.checkName" -}}
{{- $name := include "weda-connector.fullname" . }}
{{- if not (regexMatch "^[a-z]" $name) }}
{{- fail (printf "the release is called %s, so its objects would be %s, and the name of a Service begins with a letter: set fullnameOverride" .Release.Name $name) }}
{{- end }}
{{- end }}

{{- define "weda-connector.checkReplicas" -}}
{{- if and (gt (int .Values.replicaCount) 1) (not .Values.sharedJournal.enabled) (not .Values.acceptReorderingInOutages) }}
{{- fail (printf "replicaCount is %d: each replica has a journal of its own, so in an outage of Kafka the messages of an instance that went to several replicas are published out of order; share a journal (sharedJournal.enabled=true), or set acceptReorderingInOutages=true if readers can stand that, else keep replicaCount at 1" (int .Values.replicaCount)) }}
{{- end }}
{{- if and .Values.autoscaling.enabled (not .Values.sharedJournal.enabled) }}
{{- fail "autoscaling.enabled needs sharedJournal.enabled: of replicas with journals of their own, one that goes leaves its backlog on its volume" }}
{{- end }}
{{- with .Values.autoscaling }}
{{- if and .enabled (gt (int .minReplicas) (int .maxReplicas)) }}
{{- fail (printf "autoscaling.minReplicas is %d and autoscaling.maxReplicas %d: the former must not be more than the latter" (int .minReplicas) (int .maxReplicas)) }}
{{- end }}
{{- end }}
{{- end }}

{{- define "weda-connector.checkLabels" -}}
{{- $own := set (include "weda-connector.ownLabels" . | fromYaml) "app.kubernetes.io/component" "" }}
{{- range $value, $labels := dict "commonLabels" .Values.commonLabels "podLabels" .Values.podLabels "serviceMonitor.labels" .Values.serviceMonitor.labels "prometheusRule.labels" .Values.prometheusRule.labels "dashboards.labels" .Values.dashboards.labels }}
{{- range $label, $_ := $labels }}
{{- if hasKey $own $label }}
{{- fail (printf "%s: %s is the chart's own: selectors and others find the objects by it" $value $label) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* Settings that are not under `settings`, by their variable, with the place where they are instead: JSON. */}}
{{- define "weda-connector.elsewhere" -}}
{{- $elsewhere := dict }}
{{- range $variable, $secret := .Values.secretSettings }}
{{- if dig "existingSecret" "" ($secret | default dict) }}
{{- $_ := set $elsewhere $variable (printf "secretSettings.%s" $variable) }}
{{- end }}
{{- end }}
{{- $known := include "weda-connector.variables" . | fromYamlArray }}
{{- range .Values.extraEnv }}
{{- $variable := .name }}
{{- if hasPrefix "WEDA_" .name }}
{{- $variable = trimSuffix "_FILE" .name }}
{{- if not (has $variable $known) }}
{{- fail (printf "extraEnv: %s is no setting, and the connector would not start; docs/settings.md has them all" .name) }}
{{- end }}
{{- end }}
{{- with get $elsewhere $variable }}
{{- fail (printf "extraEnv: %s is set by %s too; keep one of the two" $variable .) }}
{{- end }}
{{- $_ := set $elsewhere $variable (printf "extraEnv: %s" .name) }}
{{- end }}
{{- toJson $elsewhere }}
{{- end }}

{{/* `root`, and `elsewhere` as above. */}}
{{- define "weda-connector.checkVariables" -}}
{{- with .elsewhere.WEDA_JOURNAL__URL }}
{{- fail (printf "%s: name that Secret in sharedJournal, and set sharedJournal.enabled=true: replicas that share a journal are another kind of object" .) }}
{{- end }}
{{- $elsewhere := .elsewhere }}
{{- range list "journal.path" "operations.host" "operations.port" "operations.tls_certificate" "receiver.host" "receiver.port" "receiver.shutdown_grace_seconds" "receiver.tls_certificate" }}
{{- $place := get $elsewhere (include "weda-connector.variable" .) }}
{{- if $place }}
{{- fail (printf "%s: write it as settings.%s: ports, probes, paths and the pods' time to end follow what stands there" $place .) }}
{{- end }}
{{- end }}
{{- $settings := .root.Values.settings }}
{{- range $name, $what := dict "kafka.properties" "properties" "sources" "sources" }}
{{- $place := get $elsewhere (include "weda-connector.variable" $name) }}
{{- if and $place (include "weda-connector.setting" (dict "settings" $settings "name" $name)) }}
{{- fail (printf "settings.%s and %s are both set: the latter would replace the others; write all %s into one of the two" $name $place $what) }}
{{- end }}
{{- end }}
{{- end }}

{{- define "weda-connector.checkListeners" -}}
{{- if eq (include "weda-connector.receiverPort" .) (include "weda-connector.operationsPort" .) }}
{{- fail (printf "settings.receiver.port and settings.operations.port are both %s: they are two listeners of one pod" (include "weda-connector.receiverPort" .)) }}
{{- end }}
{{- $wait := dig "kafka" "publish_wait_seconds" 0.4 .Values.settings }}
{{- $deadline := dig "receiver" "reply_deadline_seconds" 0.8 .Values.settings }}
{{- if ge (float64 $wait) (float64 $deadline) }}
{{- fail (printf "settings.kafka.publish_wait_seconds is %v and settings.receiver.reply_deadline_seconds %v: the former must be less than the latter, or the connector does not start" $wait $deadline) }}
{{- end }}
{{- $host := dig "operations" "host" "" .Values.settings | default "127.0.0.1" }}
{{- if include "weda-connector.isLoopback" $host }}
{{- fail (printf "settings.operations.host is %s: probes come from outside the pod, and would end it again and again" $host) }}
{{- end }}
{{- end }}

{{- define "weda-connector.checkService" -}}
{{- $service := .Values.service }}
{{- range $name, $types := dict "nodePort" (list "NodePort" "LoadBalancer") "externalTrafficPolicy" (list "NodePort" "LoadBalancer") "loadBalancerClass" (list "LoadBalancer") "loadBalancerSourceRanges" (list "LoadBalancer") }}
{{- if and (get $service $name) (not (has $service.type $types)) }}
{{- fail (printf "service.%s is for service.type %s, which is %s" $name (join " or " $types) $service.type) }}
{{- end }}
{{- end }}
{{- $isV6 := or (has "IPv6" ($service.ipFamilies | default list)) (has $service.ipFamilyPolicy (list "PreferDualStack" "RequireDualStack")) }}
{{- range list "receiver" "operations" }}
{{- $host := dig . "host" "0.0.0.0" $.Values.settings }}
{{- if and $isV6 (eq $host "0.0.0.0") }}
{{- fail (printf "settings.%s.host is 0.0.0.0, which has no address of IPv6, and service.ipFamilies or service.ipFamilyPolicy asks for some: set it to \"::\", which has both" .) }}
{{- end }}
{{- end }}
{{- end }}

{{- define "weda-connector.checkCertificates" -}}
{{- $certificates := .Values.certificates | default dict }}
{{- range regexFindAll "/etc/weda-connector/certificates/[^/\\s\"']+" (toJson .Values.settings) -1 }}
{{- if not (hasKey $certificates (base .)) }}
{{- fail (printf "settings: %s is there only if certificates.%s names a Secret" . (base .)) }}
{{- end }}
{{- end }}
{{- end }}

{{/* A claim that a replica has is not drained: the Job would wait for it, or take messages from under it. */}}
{{- define "weda-connector.checkDrain" -}}
{{- if not .Values.sharedJournal.enabled }}
{{- $prefix := printf "journal-%s-" (include "weda-connector.fullname" .) }}
{{- range .Values.drain.claims }}
{{- $ordinal := trimPrefix $prefix . }}
{{- if and (hasPrefix $prefix .) (regexMatch "^[0-9]{1,9}$" $ordinal) (lt (int $ordinal) (int $.Values.replicaCount)) }}
{{- fail (printf "drain.claims: %s is the claim of replica %s, which publishes what is in it itself" . $ordinal) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "weda-connector.checkExtras" -}}
{{- range .Values.extraVolumes }}
{{- if or (has .name (list "config" "secrets" "tmp" "journal" "cache")) (hasPrefix "certificates-" .name) }}
{{- fail (printf "extraVolumes: %s is the name of a volume of the chart's own" .name) }}
{{- end }}
{{- end }}
{{- range .Values.extraVolumeMounts }}
{{- if regexMatch "^(/tmp|/var/lib/weda-connector|/etc/weda-connector/(config|secrets)|/etc/weda-connector/certificates/[^/]+)/?$" .mountPath }}
{{- fail (printf "extraVolumeMounts: at %s the chart mounts a volume of its own" .mountPath) }}
{{- end }}
{{- end }}
{{- range concat (.Values.extraContainers | default list) (.Values.extraInitContainers | default list) }}
{{- if eq .name "connector" }}
{{- fail "extraContainers: connector is the name of the chart's own container" }}
{{- end }}
{{- end }}
{{- end }}

{{/* `root`, and `elsewhere` as above: what the connector does not start without, or not as it should. */}}
{{- define "weda-connector.checkMissing" -}}
{{- $elsewhere := .elsewhere }}
{{- $settings := .root.Values.settings }}
{{- if not (or (dig "kafka" "bootstrap_servers" "" $settings) (hasKey $elsewhere "WEDA_KAFKA__BOOTSTRAP_SERVERS")) }}
{{- fail "settings.kafka.bootstrap_servers is empty: give the brokers as host:port,host:port; without them the connector does not start" }}
{{- end }}
{{- if eq (dig "kafka" "bootstrap_servers" "" $settings) "embedded" }}
{{- fail "settings.kafka.bootstrap_servers is embedded: records would be in the memory of one pod, and gone with it; name real brokers" }}
{{- end }}
{{- range $name, $secret := dict "registry.username" "WEDA_REGISTRY__PASSWORD" "privacy.pseudonyms" "WEDA_PRIVACY__KEY" }}
{{- $isSet := or (include "weda-connector.setting" (dict "settings" $settings "name" $name)) (get $elsewhere (include "weda-connector.variable" $name)) }}
{{- if ne (empty $isSet) (empty (get $elsewhere $secret)) }}
{{- fail (printf "settings.%s and secretSettings.%s go together: with one of them the connector does not start" $name $secret) }}
{{- end }}
{{- end }}
{{- $isOpen := or (eq (dig "auth" "" $settings) "none") (include "weda-connector.isLoopback" (dig "receiver" "host" "" $settings)) }}
{{- range $name, $source := dig "sources" dict $settings }}
{{- $isOpen = or $isOpen (not (empty $source.certificates)) }}
{{- end }}
{{- range list "WEDA_TOKEN" "WEDA_SOURCES" "WEDA_AUTH" }}
{{- $isOpen = or $isOpen (hasKey $elsewhere .) }}
{{- end }}
{{- if not $isOpen }}
{{- fail "no source has a credential, so the connector would listen on loopback only and nobody could send: name a Secret in secretSettings.WEDA_TOKEN or secretSettings.WEDA_SOURCES, or let everybody in by settings.auth=none" }}
{{- end }}
{{- end }}

{{/* The variable of a setting by its dotted name. */}}
{{- define "weda-connector.variable" -}}
WEDA_{{ . | replace "." "__" | upper }}
{{- end }}

{{/* Whether `settings` have something under a dotted `name`: text or nothing. */}}
{{- define "weda-connector.setting" -}}
{{- $at := .settings }}
{{- range splitList "." .name }}
{{- $at = get ($at | default dict) . }}
{{- end }}
{{- if $at }}true{{ end }}
{{- end }}

{{/* Whether a host is this machine's alone: text or nothing. */}}
{{- define "weda-connector.isLoopback" -}}
{{- if regexMatch "^(127\\..*|::1|localhost)$" . }}true{{ end }}
{{- end }}
