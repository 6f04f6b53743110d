{{- define "aegis.labels" -}}
app.kubernetes.io/name: aegis-streams
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "aegis.selector" -}}
app.kubernetes.io/name: aegis-streams
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "aegis.secret" -}}
{{ .Values.existingSecret | default (printf "%s-secrets" .Release.Name) }}
{{- end }}

{{/* What every pod has in common: who it is, what it may, where its settings come from. */}}
{{- define "aegis.pod" -}}
serviceAccountName: {{ .Release.Name }}
automountServiceAccountToken: false
terminationGracePeriodSeconds: {{ .Values.terminationGracePeriodSeconds }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  seccompProfile: {type: RuntimeDefault}
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.affinity }}
affinity: {{ toYaml . | nindent 2 }}
{{- end }}
volumes:
  - {name: tmp, emptyDir: {}}
  - {name: data, emptyDir: {}}
  {{- with .Values.kafkaCertificates }}
  - {name: kafka, secret: {secretName: {{ . }}, defaultMode: 0440}}
  {{- end }}
  {{- if .Values.blobs.enabled }}
  - {name: blobs, persistentVolumeClaim: {claimName: {{ .Release.Name }}-blobs}}
  {{- end }}
{{- end }}

{{- define "aegis.container" -}}
image: {{ printf "%s:%s" .root.Values.image.repository (.tag | default .root.Values.image.tag) | quote }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
envFrom:
  - configMapRef: {name: {{ .root.Release.Name }}-settings}
  - secretRef: {name: {{ include "aegis.secret" .root }}, optional: true}
volumeMounts:
  - {name: tmp, mountPath: /tmp}
  - {name: data, mountPath: /data}
  {{- if .root.Values.kafkaCertificates }}
  - {name: kafka, mountPath: /kafka, readOnly: true}
  {{- end }}
  {{- if .root.Values.blobs.enabled }}
  - {name: blobs, mountPath: /blobs}
  {{- end }}
{{- end }}

{{/* Pods are made anew when their settings change. */}}
{{- define "aegis.checksum" -}}
checksum/settings: {{ toJson (list .Values.settings .Values.secrets) | sha256sum }}
{{- end }}
