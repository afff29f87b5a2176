{{- define "gsco.name" -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "gsco.labels" -}}
app.kubernetes.io/name: gsco
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end -}}

{{- define "gsco.selector" -}}
app.kubernetes.io/name: gsco
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "gsco.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}

{{- define "gsco.claim" -}}
{{ .Values.home.existingClaim | default (printf "%s-home" (include "gsco.name" .)) }}
{{- end -}}

{{- define "gsco.pod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  seccompProfile: {type: RuntimeDefault}
{{- with .Values.image.pullSecrets }}
imagePullSecrets: {{ toJson . }}
{{- end }}
{{- end -}}

{{- define "gsco.container" -}}
image: {{ include "gsco.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  readOnlyRootFilesystem: true
  allowPrivilegeEscalation: false
  capabilities: {drop: [ALL]}
env:
  - {name: GSCO_AUTHENTICATION, value: "true"}
  - {name: GSCO_SECRETS_FOLDER, value: /etc/gsco/secrets}
  - {name: GSCO_GENERALIST_ENGINE, value: {{ .Values.generalist.engine | quote }}}
  {{- if eq .Values.generalist.engine "vllm" }}
  - {name: GSCO_GENERALIST_URL, value: {{ .Values.generalist.url | quote }}}
  - {name: GSCO_GENERALIST_MODEL, value: {{ .Values.generalist.model | quote }}}
  {{- end }}
  {{- if .Values.panel.enabled }}
  - {name: GSCO_SPECIALISTS_URL, value: "http://{{ include "gsco.name" . }}-panel-serve-svc:8000"}
  {{- end }}
  {{- range $name, $value := .Values.settings }}
  - {name: GSCO_{{ $name }}, value: {{ $value | quote }}}
  {{- end }}
volumeMounts:
  - {name: home, mountPath: /var/lib/gsco}
  - {name: tmp, mountPath: /tmp}
  - {name: secrets, mountPath: /etc/gsco/secrets, readOnly: true}
{{- end -}}

{{- define "gsco.volumes" -}}
- {name: home, persistentVolumeClaim: {claimName: {{ include "gsco.claim" . }}}}
- {name: tmp, emptyDir: {sizeLimit: 2Gi}}
- {name: secrets, secret: {secretName: {{ .Values.secretName }}, defaultMode: 0440}}
{{- end -}}
