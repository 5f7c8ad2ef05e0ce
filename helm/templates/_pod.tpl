{{/* The connector's pod: of the StatefulSet with a volume for its journal, of the Deployment with an empty folder. */}}
{{- define "weda-connector.pod" -}}
metadata:
  labels:
    {{- include "weda-connector.podLabels" (dict "root" . "component" "connector" "more" .Values.podLabels) | nindent 4 }}
  annotations:
    {{- $own := dict "checksum/config" (include "weda-connector.config" . | sha256sum) }}
    {{- toYaml (merge $own (.Values.podAnnotations | default dict) (dict "kubectl.kubernetes.io/default-container" "connector")) | nindent 4 }}
spec:
  {{- include "weda-connector.podBasics" . | nindent 2 }}
  serviceAccountName: {{ include "weda-connector.serviceAccountName" . | quote }}
  terminationGracePeriodSeconds: {{ include "weda-connector.gracePeriod" . }}
  {{- with .Values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.topologySpreadConstraints | default (include "weda-connector.spread" . | fromYamlArray) }}
  topologySpreadConstraints:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.extraInitContainers }}
  initContainers:
    {{- include "weda-connector.tpl" (dict "value" . "root" $) | nindent 4 }}
  {{- end }}
  containers:
    - name: connector
      args: [serve, --config, /etc/weda-connector/config/config.yaml]
      {{- include "weda-connector.containerBasics" . | nindent 6 }}
      ports:
        - name: http
          containerPort: {{ include "weda-connector.receiverPort" . }}
          protocol: TCP
        - name: operations
          containerPort: {{ include "weda-connector.operationsPort" . }}
          protocol: TCP
      startupProbe:
        {{- include "weda-connector.probe" (dict "root" . "path" "/livez") | nindent 8 }}
        {{- toYaml .Values.probes.startup | nindent 8 }}
      livenessProbe: # never looks at Kafka: a restart mends no broker
        {{- include "weda-connector.probe" (dict "root" . "path" "/livez") | nindent 8 }}
        {{- toYaml .Values.probes.liveness | nindent 8 }}
      readinessProbe:
        {{- include "weda-connector.probe" (dict "root" . "path" "/readyz") | nindent 8 }}
        {{- toYaml .Values.probes.readiness | nindent 8 }}
      lifecycle:
        preStop:
          exec:
            command: [sleep, {{ .Values.preStopSeconds | quote }}]
      volumeMounts:
        - name: {{ ternary "cache" "journal" .Values.sharedJournal.enabled }}
          mountPath: /var/lib/weda-connector
        {{- include "weda-connector.mounts" . | nindent 8 }}
    {{- with .Values.extraContainers }}
    {{- include "weda-connector.tpl" (dict "value" . "root" $) | nindent 4 }}
    {{- end }}
  volumes:
    {{- if .Values.sharedJournal.enabled }}
    - name: cache # the ids of schemas; no journal in a file belongs here
      emptyDir:
        sizeLimit: 16Mi
    {{- else if .Values.persistence.existingClaim }}
    - name: journal
      persistentVolumeClaim:
        claimName: {{ include "weda-connector.tpl" (dict "value" .Values.persistence.existingClaim "root" .) | quote }}
    {{- end }}
    {{- include "weda-connector.volumes" (dict "root" . "config" (include "weda-connector.fullname" .)) | nindent 4 }}
{{- end }}

{{/* Replicas that share a journal stand on different zones and nodes, as far as there are some. */}}
{{- define "weda-connector.spread" -}}
{{- if .Values.sharedJournal.enabled }}
{{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
- maxSkew: 1
  topologyKey: {{ . }}
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels:
      {{- include "weda-connector.selector" $ | nindent 6 }}
      app.kubernetes.io/component: connector
  matchLabelKeys: [pod-template-hash] # the pods of the version that goes do not count
{{- end }}
{{- end }}
{{- end }}
