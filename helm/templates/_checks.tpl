{{/* Values that render but would fail or do harm later: each is refused in one line that names it. */}}
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
{{- include "weda-connector.checkBrokers" . }}
{{- include "weda-connector.checkVolume" . }}
{{- include "weda-connector.checkClaims" (dict "root" . "live" (lookup "apps/v1" "StatefulSet" .Release.Namespace (include "weda-connector.fullname" .))) }}
{{- include "weda-connector.checkStrategy" . }}
{{- include "weda-connector.checkBudget" . }}
{{- include "weda-connector.checkMonitors" . }}
{{- include "weda-connector.checkNetworkPolicy" . }}
{{- include "weda-connector.checkExtras" . }}
{{- if not .Values.extraEnvFrom }}{{/* The chart cannot see what is in there. */}}
{{- include "weda-connector.checkMissing" (dict "root" . "elsewhere" $elsewhere) }}
{{- end }}
{{- end }}

{{- define "weda-connector.checkName" -}}
{{- $name := include "weda-connector.fullname" . }}
{{- if not (regexMatch "^[a-z]" $name) }}
{{- fail (printf "release name %s: the objects would be called %s, but the name of a Service must begin with a letter; set fullnameOverride" .Release.Name $name) }}
{{- end }}
{{- end }}

{{- define "weda-connector.checkReplicas" -}}
{{- if not .Values.sharedJournal.enabled }}
{{- if kindIs "invalid" .Values.replicaCount }}
{{- fail "replicaCount is null, which leaves the number of replicas to an external scaler, and that needs sharedJournal.enabled: a replica with its own journal that is scaled down leaves its unpublished messages on its volume" }}
{{- end }}
{{- if and (gt (int .Values.replicaCount) 1) (not .Values.acceptReorderingInOutages) }}
{{- fail (printf "replicaCount is %d, and each replica has its own journal: during a Kafka outage, messages of one instance that reached different replicas are published out of order; share a journal (sharedJournal.enabled=true), set acceptReorderingInOutages=true if your consumers can handle that, or keep replicaCount at 1" (int .Values.replicaCount)) }}
{{- end }}
{{- if .Values.autoscaling.enabled }}
{{- fail "autoscaling.enabled needs sharedJournal.enabled: a replica with its own journal that is scaled down leaves its unpublished messages on its volume" }}
{{- end }}
{{- end }}
{{- with .Values.autoscaling }}
{{- if and .enabled (gt (int .minReplicas) (int .maxReplicas)) }}
{{- fail (printf "autoscaling.minReplicas (%d) must not exceed autoscaling.maxReplicas (%d)" (int .minReplicas) (int .maxReplicas)) }}
{{- end }}
{{- if and .enabled (not (or .targetCPU .metrics)) }}
{{- fail "autoscaling.targetCPU and autoscaling.metrics are both empty: the autoscaler would have nothing to measure" }}
{{- end }}
{{- end }}
{{- end }}

{{- define "weda-connector.checkLabels" -}}
{{- $own := set (include "weda-connector.ownLabels" . | fromYaml) "app.kubernetes.io/component" "" }}
{{- range $value, $labels := dict "commonLabels" .Values.commonLabels "podLabels" .Values.podLabels "jobs.podLabels" .Values.jobs.podLabels "serviceMonitor.labels" .Values.serviceMonitor.labels "podMonitor.labels" .Values.podMonitor.labels "prometheusRule.labels" .Values.prometheusRule.labels "dashboards.labels" .Values.dashboards.labels }}
{{- range $label, $_ := $labels }}
{{- if hasKey $own $label }}
{{- fail (printf "%s: the chart sets the label %s itself, and objects are found by it; choose another label" $value $label) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* Settings that are set outside `settings`: their variables, each with the value that sets it, as JSON. */}}
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
{{- if not (or (has $variable $known) (regexMatch (include "weda-connector.part" $) $variable)) }}
{{- fail (printf "extraEnv: %s is not a setting, so the connector would not start; docs/settings.md lists all settings" .name) }}
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
{{- fail (printf "%s: name this Secret in sharedJournal.existingSecret and set sharedJournal.enabled=true instead: replicas that share a journal run as a Deployment" .) }}
{{- end }}
{{- $elsewhere := .elsewhere }}
{{- range list "journal.path" "journal.max_bytes" "operations.host" "operations.port" "operations.tls_certificate" "receiver.host" "receiver.port" "receiver.shutdown_grace_seconds" "receiver.tls_certificate" }}
{{- $place := get $elsewhere (include "weda-connector.variable" .) }}
{{- if $place }}
{{- fail (printf "%s: set it as settings.%s instead: the chart derives ports, probes, paths, volumes or the grace period from it" $place .) }}
{{- end }}
{{- end }}
{{- $settings := .root.Values.settings }}
{{- range $name, $what := dict "kafka.properties" "properties" "sources" "sources" }}
{{- $place := get $elsewhere (include "weda-connector.variable" $name) }}
{{- if and $place (include "weda-connector.setting" (dict "settings" $settings "name" $name)) }}
{{- fail (printf "settings.%s and %s are both set: the second would replace the first; write all %s into one of them, or only the secret part into %s__…" $name $place $what $place) }}
{{- end }}
{{- end }}
{{- include "weda-connector.checkParts" . }}
{{- end }}

{{/* `root`, and `elsewhere` as above. A part of a setting is set once, and of a source that there is. */}}
{{- define "weda-connector.checkParts" -}}
{{- $settings := .root.Values.settings }}
{{- $properties := "WEDA_KAFKA__PROPERTIES__" }}
{{- range $property, $_ := dig "kafka" "properties" dict $settings | default dict }}
{{- with get $.elsewhere (printf "%s%s" $properties (upper (regexReplaceAll "[.-]" $property "_"))) }}
{{- fail (printf "settings.kafka.properties: %s is set by %s too; keep one of the two" $property .) }}
{{- end }}
{{- end }}
{{- $sources := dig "sources" dict $settings | default (dict "default" dict) }}
{{- $names := dict }}
{{- range $source, $_ := $sources }}
{{- $part := upper (replace "-" "_" $source) }}
{{- if and (hasKey $names $part) (regexMatch (printf "WEDA_SOURCES__%s__" $part) (toJson $.elsewhere)) }}
{{- fail (printf "settings.sources: %s and %s have the same variables (WEDA_SOURCES__%s__…); rename one of the two" (get $names $part) $source $part) }}
{{- end }}
{{- $_ := set $names $part $source }}
{{- end }}
{{- if not (or (hasKey .elsewhere "WEDA_SOURCES") .root.Values.extraEnvFrom) }}
{{- range $variable, $place := .elsewhere }}
{{- if hasPrefix "WEDA_SOURCES__" $variable }}
{{- $part := regexReplaceAll "^WEDA_SOURCES__(.*)__(TOKENS|SECRETS)$" $variable "${1}" }}
{{- if not (hasKey $names $part) }}
{{- fail (printf "%s: settings.sources has no source of this name (sources there: %s); add it, if only as an empty object: {}" $place (keys $sources | sortAlpha | join ", ")) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "weda-connector.checkListeners" -}}
{{- if eq (include "weda-connector.receiverPort" .) (include "weda-connector.operationsPort" .) }}
{{- fail (printf "settings.receiver.port and settings.operations.port are both %s: the two listeners of a pod need two ports" (include "weda-connector.receiverPort" .)) }}
{{- end }}
{{- $wait := dig "kafka" "publish_wait_seconds" 0.4 .Values.settings }}
{{- $deadline := dig "receiver" "reply_deadline_seconds" 0.8 .Values.settings }}
{{- if ge (float64 $wait) (float64 $deadline) }}
{{- fail (printf "settings.kafka.publish_wait_seconds (%v) must be less than settings.receiver.reply_deadline_seconds (%v), or the connector does not start" $wait $deadline) }}
{{- end }}
{{- $host := dig "operations" "host" "" .Values.settings | default "127.0.0.1" }}
{{- if include "weda-connector.isLoopback" $host }}
{{- fail (printf "settings.operations.host is %s: probes come from outside the pod and would fail, so it would be restarted again and again; use 0.0.0.0 or ::" $host) }}
{{- end }}
{{- end }}

{{- define "weda-connector.checkService" -}}
{{- $service := .Values.service }}
{{- range $name, $types := dict "nodePort" (list "NodePort" "LoadBalancer") "externalTrafficPolicy" (list "NodePort" "LoadBalancer") "loadBalancerClass" (list "LoadBalancer") "loadBalancerSourceRanges" (list "LoadBalancer") }}
{{- if and (get $service $name) (not (has $service.type $types)) }}
{{- fail (printf "service.%s is only for service.type %s, but the type is %s" $name (join " or " $types) $service.type) }}
{{- end }}
{{- end }}
{{- $isV6 := or (has "IPv6" ($service.ipFamilies | default list)) (has $service.ipFamilyPolicy (list "PreferDualStack" "RequireDualStack")) }}
{{- range list "receiver" "operations" }}
{{- $host := dig . "host" "0.0.0.0" $.Values.settings }}
{{- if and $isV6 (eq $host "0.0.0.0") }}
{{- fail (printf "settings.%s.host is 0.0.0.0, which accepts no IPv6, but service.ipFamilies or service.ipFamilyPolicy asks for it: set it to \"::\", which accepts both" .) }}
{{- end }}
{{- end }}
{{- end }}

{{- define "weda-connector.checkCertificates" -}}
{{- $certificates := .Values.certificates | default dict }}
{{- range regexFindAll "/etc/weda-connector/certificates/[^/\\s\"']+" (toJson .Values.settings) -1 }}
{{- if not (hasKey $certificates (base .)) }}
{{- fail (printf "settings: the files in %s exist only if certificates.%s names a Secret" . (base .)) }}
{{- end }}
{{- end }}
{{- end }}

{{/* The claim of a running replica is not drained: the Job would wait for the volume, or publish messages that the replica publishes too. */}}
{{- define "weda-connector.checkDrain" -}}
{{- if not .Values.sharedJournal.enabled }}
{{- $prefix := printf "journal-%s-" (include "weda-connector.fullname" .) }}
{{- range .Values.drain.claims }}
{{- $ordinal := trimPrefix $prefix . }}
{{- if and (hasPrefix $prefix .) (regexMatch "^[0-9]{1,9}$" $ordinal) (lt (int $ordinal) (int $.Values.replicaCount)) (not $.Values.persistence.existingClaim) }}
{{- fail (printf "drain.claims: %s belongs to replica %s, which publishes its messages itself" . $ordinal) }}
{{- end }}
{{- if eq . $.Values.persistence.existingClaim }}
{{- fail (printf "drain.claims: %s is persistence.existingClaim, whose messages the connector publishes itself" .) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "weda-connector.checkBrokers" -}}
{{- if eq (dig "kafka" "bootstrap_servers" "" .Values.settings | default "" | trim) "embedded" }}
{{- fail "settings.kafka.bootstrap_servers is embedded: the records would exist only in the memory of one pod and be lost with it; set real brokers" }}
{{- end }}
{{- end }}

{{- define "weda-connector.checkVolume" -}}
{{- $claim := .Values.persistence.existingClaim }}
{{- if and $claim .Values.sharedJournal.enabled }}
{{- fail "persistence.existingClaim and sharedJournal.enabled exclude each other: replicas that share a journal have no volumes; to publish what is in the claim, name it in drain.claims" }}
{{- end }}
{{- if and $claim (gt (int .Values.replicaCount) 1) }}
{{- fail (printf "persistence.existingClaim is one volume, but replicaCount is %d: each replica needs its own" (int .Values.replicaCount)) }}
{{- end }}
{{- if not (or $claim .Values.sharedJournal.enabled) }}
{{- $journal := dig "journal" "max_bytes" "1GiB" .Values.settings | default "1GiB" }}
{{- $needed := mul 4 (include "weda-connector.bytes" $journal | int64) }}
{{- if lt (include "weda-connector.bytes" .Values.persistence.size | int64) $needed }}
{{- fail (printf "persistence.size is %s and settings.journal.max_bytes %v: the volume must hold four times the journal (itself, damaged copies and the new file), so at least %d bytes" .Values.persistence.size (kindIs "string" $journal | ternary $journal (int64 $journal)) $needed) }}
{{- end }}
{{- end }}
{{- end }}

{{/* `root`, and `live`: the StatefulSet of this name in the cluster, empty where there is none or no cluster. */}}
{{- define "weda-connector.checkClaims" -}}
{{- if and .live (not .root.Values.sharedJournal.enabled) }}
{{- $wanted := list }}
{{- if not .root.Values.persistence.existingClaim }}
{{- $wanted = include "weda-connector.claims" .root | fromYamlArray }}
{{- end }}
{{- $existing := dig "spec" "volumeClaimTemplates" list .live | default list }}
{{- $reason := "the volume claims of a StatefulSet cannot be changed; see \"A larger volume\" in docs/kubernetes.md for how to replace it without stopping its pods" }}
{{- if ne (len $existing) (len $wanted) }}
{{- fail (printf "persistence.existingClaim was set or removed: %s" $reason) }}
{{- end }}
{{- range $index, $claim := $wanted }}
{{- $old := index $existing $index }}
{{- $size := dig "spec" "resources" "requests" "storage" "0" $old }}
{{- if ne (include "weda-connector.bytes" $size) (include "weda-connector.bytes" $claim.spec.resources.requests.storage) }}
{{- fail (printf "persistence.size was %s: %s" $size $reason) }}
{{- end }}
{{- if ne (toJson (dig "metadata" "annotations" dict $old | default dict)) (toJson (dig "metadata" "annotations" dict $claim | default dict)) }}
{{- fail (printf "persistence.annotations were %s: %s" (dig "metadata" "annotations" dict $old | default dict | toJson) $reason) }}
{{- end }}
{{- if ne (toJson $old.spec.accessModes) (toJson $claim.spec.accessModes) }}
{{- fail (printf "persistence.accessModes were %s: %s" (toJson $old.spec.accessModes) $reason) }}
{{- end }}
{{- if ne (toJson (get $old.spec "storageClassName")) (toJson (get $claim.spec "storageClassName")) }}
{{- fail (printf "persistence.storageClassName was %s: %s" (get $old.spec "storageClassName" | toJson) $reason) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "weda-connector.checkStrategy" -}}
{{- with (.Values.updateStrategy | default dict).type }}
{{- $allowed := ternary (list "RollingUpdate" "Recreate") (list "RollingUpdate" "OnDelete") $.Values.sharedJournal.enabled }}
{{- if not (has . $allowed) }}
{{- fail (printf "updateStrategy.type is %s, but with sharedJournal.enabled=%v it can only be %s" . $.Values.sharedJournal.enabled (join " or " $allowed)) }}
{{- end }}
{{- end }}
{{- end }}

{{- define "weda-connector.checkBudget" -}}
{{- with .Values.podDisruptionBudget }}
{{- if and .enabled (kindIs "invalid" .maxUnavailable) (kindIs "invalid" .minAvailable) }}
{{- fail "podDisruptionBudget.maxUnavailable and podDisruptionBudget.minAvailable are both null: set one of them, or podDisruptionBudget.enabled=false" }}
{{- end }}
{{- end }}
{{- end }}

{{- define "weda-connector.checkMonitors" -}}
{{- if and .Values.serviceMonitor.enabled .Values.podMonitor.enabled }}
{{- fail "serviceMonitor.enabled and podMonitor.enabled: with both, everything would be scraped and counted twice; keep one of the two" }}
{{- end }}
{{- range $name := list "serviceMonitor" "podMonitor" }}
{{- with get $.Values $name }}
{{- if and .enabled .scrapeTimeout (gt (include "weda-connector.milliseconds" .scrapeTimeout | int64) (include "weda-connector.milliseconds" .interval | int64)) }}
{{- fail (printf "%s.scrapeTimeout (%s) must not exceed %s.interval (%s), or Prometheus does not scrape at all" $name .scrapeTimeout $name .interval) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "weda-connector.checkNetworkPolicy" -}}
{{- if and .Values.networkPolicy.enabled (not .Values.networkPolicy.egress) }}
{{- fail "networkPolicy.egress is empty, so the pods could not even reach Kafka: name what they may reach, allow everything with [{}], or set networkPolicy.enabled=false" }}
{{- end }}
{{- end }}

{{- define "weda-connector.checkExtras" -}}
{{- range .Values.extraVolumes }}
{{- if or (has .name (list "config" "secrets" "tmp" "journal" "cache")) (hasPrefix "certificates-" .name) }}
{{- fail (printf "extraVolumes: the chart has a volume called %s itself; choose another name" .name) }}
{{- end }}
{{- end }}
{{- range .Values.extraVolumeMounts }}
{{- if regexMatch "^(/tmp|/var/lib/weda-connector|/etc/weda-connector/(config|secrets)|/etc/weda-connector/certificates/[^/]+)/?$" .mountPath }}
{{- fail (printf "extraVolumeMounts: the chart itself mounts a volume at %s; choose another path" .mountPath) }}
{{- end }}
{{- end }}
{{- range $value := list "extraContainers" "extraInitContainers" }}
{{- range get $.Values $value | default list }}
{{- if eq .name "connector" }}
{{- fail (printf "%s: the chart's own container is called connector; choose another name" $value) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* `root`, and `elsewhere` as above: what the connector needs in order to start and to be reached. */}}
{{- define "weda-connector.checkMissing" -}}
{{- $elsewhere := .elsewhere }}
{{- $settings := .root.Values.settings }}
{{- if not (or (dig "kafka" "bootstrap_servers" "" $settings) (hasKey $elsewhere "WEDA_KAFKA__BOOTSTRAP_SERVERS")) }}
{{- fail "settings.kafka.bootstrap_servers is empty: set the brokers as host:port,host:port; the connector does not start without them" }}
{{- end }}
{{- range $name, $secret := dict "registry.username" "WEDA_REGISTRY__PASSWORD" "privacy.pseudonyms" "WEDA_PRIVACY__KEY" }}
{{- $isSet := or (include "weda-connector.setting" (dict "settings" $settings "name" $name)) (get $elsewhere (include "weda-connector.variable" $name)) }}
{{- if ne (empty $isSet) (empty (get $elsewhere $secret)) }}
{{- fail (printf "settings.%s and secretSettings.%s must be set together: with only one of them the connector does not start" $name $secret) }}
{{- end }}
{{- end }}
{{- $isOpen := or (eq (dig "auth" "" $settings) "none") (include "weda-connector.isLoopback" (dig "receiver" "host" "" $settings)) }}
{{- range $name, $source := dig "sources" dict $settings }}
{{- $isOpen = or $isOpen (not (empty $source.certificates)) }}
{{- end }}
{{- range $variable, $_ := $elsewhere }}
{{- $isOpen = or $isOpen (has $variable (list "WEDA_TOKEN" "WEDA_SOURCES" "WEDA_AUTH")) (hasPrefix "WEDA_SOURCES__" $variable) }}
{{- end }}
{{- if not $isOpen }}
{{- fail "no source has a credential, so the connector would listen only inside its pod and nobody could send: name a Secret in secretSettings.WEDA_TOKEN or, for a source, in secretSettings.WEDA_SOURCES__<NAME>__TOKENS, or accept everybody with settings.auth=none" }}
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

{{/* Whether a host is only reachable from inside the pod: text or nothing. */}}
{{- define "weda-connector.isLoopback" -}}
{{- if regexMatch "^(127\\..*|::1|localhost)$" . }}true{{ end }}
{{- end }}
