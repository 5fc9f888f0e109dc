"""The texts of the files that `deploy` writes, with `string.Template`'s places to fill.

TensorFlow Serving's own files are protocol buffers in text form: ModelServerConfig
(tensorflow_serving/config/model_server_config.proto), BatchingParameters
(servables/tensorflow/session_bundle_config.proto) and MonitoringConfig
(config/monitoring_config.proto). Its flags are those of model_servers/main.cc.
"""

MODEL = """\
  config {
    name: "$name"
    base_path: "$path"
    model_platform: "tensorflow"
    model_version_policy { $policy }
$labels  }
"""
LABEL = '    version_labels { key: "$label" value: $version }\n'

# A request of more images than the largest batch is refused (400); the client of
# kerascnn sends 64. The sizes in between let the server fill a batch up with copies
# instead of meeting every size anew. 100 batches may wait; then requests get 503.
BATCHING = """\
max_batch_size { value: 128 }
batch_timeout_micros { value: 1000 }
max_enqueued_batches { value: 100 }
num_batch_threads { value: $threads }
allowed_batch_sizes: 1
allowed_batch_sizes: 2
allowed_batch_sizes: 4
allowed_batch_sizes: 8
allowed_batch_sizes: 16
allowed_batch_sizes: 32
allowed_batch_sizes: 64
allowed_batch_sizes: 128
"""

MONITORING = """\
prometheus_config {
  enable: true
  path: "/monitoring/prometheus/metrics"
}
"""

FLAGS = (
    "--port=8500",
    "--rest_api_port=8501",
    "--model_config_file=/config/model.config",
    # A change of model.config is noticed while the server runs.
    "--model_config_file_poll_wait_seconds=30",
    # Otherwise a label is refused until its version is loaded: at the start, always.
    "--allow_version_labels_for_unavailable_models=true",
    "--enable_batching=true",
    "--batching_parameters_file=/config/batching.config",
    "--monitoring_config_file=/config/monitoring.config",
)

COMPOSE = """\
# TensorFlow Serving for $names. Start it: docker compose up
name: kerascnn
services:
  serving:
    image: $image
    entrypoint: ["tensorflow_model_server"]
    command:
$flags
    ports:  # of this machine only; leave 127.0.0.1 out to serve others
      - "127.0.0.1:8500:8500"  # gRPC
      - "127.0.0.1:8501:8501"  # REST
    volumes:
      - {type: bind, source: ./config, target: /config, read_only: true}
$volumes
    read_only: true
    tmpfs: ["/tmp"]
    security_opt: ["no-new-privileges:true"]
    restart: unless-stopped
    stop_grace_period: 10s  # TensorFlow Serving ignores SIGTERM and is killed then
    healthcheck:  # the image has no curl
      test: $health
      interval: 10s
      timeout: 5s
      start_period: 120s
"""
VOLUME = "      - {type: bind, source: $source, target: $target, read_only: true}\n"
HEALTH = (
    "exec 3<>/dev/tcp/127.0.0.1/8501; "
    "printf 'GET /v1/models/$name/metadata HTTP/1.0\\r\\n\\r\\n' >&3; "
    "head -n 1 <&3 | grep -q ' 200 '"
)

STORAGE = """\
# Where the versions lie. Every replica reads them, so the volume has to be one that
# several nodes can mount; where the cluster has no such storage class, ask for
# ReadWriteOnce and run all replicas on one node.
apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  name: kerascnn-models
spec:
  accessModes: ["ReadWriteMany"]
  resources:
    requests:
      storage: $storage
"""

LOADER = """\
# A pod that only holds the volume, to copy versions into it.
apiVersion: v1
kind: Pod
metadata:
  name: kerascnn-loader
spec:
  automountServiceAccountToken: false
  restartPolicy: Never
  securityContext: {fsGroup: 1000}
  containers:
    - name: loader
      image: $image
      command: ["sleep", "3600"]
      securityContext:
        runAsUser: 1000
        runAsNonRoot: true
        allowPrivilegeEscalation: false
        capabilities: {drop: ["ALL"]}
      resources:
        requests: {cpu: 100m, memory: 128Mi}
        limits: {memory: 256Mi}
      volumeMounts:
        - {name: models, mountPath: /models}
  volumes:
    - name: models
      persistentVolumeClaim: {claimName: kerascnn-models}
"""

CONFIG_MAP = """\
# What is served, and how. The pods see a change of it within about a minute, and the
# server within 30 seconds more; nothing has to be restarted.
apiVersion: v1
kind: ConfigMap
metadata:
  name: kerascnn-serving
data:
  model.config: |
$models
  batching.config: |
$batching
  monitoring.config: |
$monitoring
"""

DEPLOYMENT = """\
apiVersion: apps/v1
kind: Deployment
metadata:
  name: kerascnn-serving
  labels: {app.kubernetes.io/name: kerascnn-serving}
spec:
  # No number of replicas: the autoscaler sets it.
  selector:
    matchLabels: {app.kubernetes.io/name: kerascnn-serving}
  strategy:
    rollingUpdate: {maxUnavailable: 0, maxSurge: 1}
  template:
    metadata:
      labels: {app.kubernetes.io/name: kerascnn-serving}
      annotations:
        prometheus.io/scrape: "true"
        prometheus.io/port: "8501"
        prometheus.io/path: /monitoring/prometheus/metrics
    spec:
      automountServiceAccountToken: false
      # TensorFlow Serving ignores SIGTERM (tensorflow/serving#1853): it answers what
      # it has until it is killed, and a request may take 30 seconds.
      terminationGracePeriodSeconds: 45
      securityContext:
        runAsUser: 1000
        runAsNonRoot: true
        fsGroup: 1000
        seccompProfile: {type: RuntimeDefault}
      topologySpreadConstraints:
        - maxSkew: 1
          topologyKey: kubernetes.io/hostname
          whenUnsatisfiable: ScheduleAnyway
          labelSelector:
            matchLabels: {app.kubernetes.io/name: kerascnn-serving}
      containers:
        - name: serving
          image: $image
          command: ["tensorflow_model_server"]
          args:
$flags
          ports:
            - {name: grpc, containerPort: 8500}
            - {name: rest, containerPort: 8501}
          # The server opens its ports when all models are loaded; the metadata of a
          # model are answered while one of its versions can be asked.
          startupProbe:
            httpGet: {path: $ready, port: rest}
            periodSeconds: 5
            failureThreshold: 60
          readinessProbe:
            httpGet: {path: $ready, port: rest}
            periodSeconds: 5
            timeoutSeconds: 5
          livenessProbe:
            tcpSocket: {port: grpc}
            periodSeconds: 10
            failureThreshold: 6
          lifecycle:
            # The service and the pod learn of the end at the same time: requests still
            # come for some seconds.
            preStop: {exec: {command: ["sleep", "10"]}}
          resources:
            requests: {cpu: "$cpus", memory: 1Gi}
            limits: {cpu: "$cpus", memory: 2Gi}
          securityContext:
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities: {drop: ["ALL"]}
          volumeMounts:
            - {name: models, mountPath: /models, readOnly: true}
            - {name: config, mountPath: /config, readOnly: true}
            - {name: tmp, mountPath: /tmp}
      volumes:
        - name: models
          persistentVolumeClaim: {claimName: kerascnn-models, readOnly: true}
        - name: config
          configMap: {name: kerascnn-serving}
        - name: tmp
          emptyDir: {}
"""

SERVICE = """\
apiVersion: v1
kind: Service
metadata:
  name: kerascnn-serving
  labels: {app.kubernetes.io/name: kerascnn-serving}
spec:
  selector: {app.kubernetes.io/name: kerascnn-serving}
  ports:
    - {name: rest, port: 8501, targetPort: rest}
    - {name: grpc, port: 8500, targetPort: grpc}
"""

AUTOSCALER = """\
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: kerascnn-serving
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: kerascnn-serving}
  minReplicas: $replicas
  maxReplicas: $most
  metrics:
    - type: Resource
      resource:
        name: cpu
        target: {type: Utilization, averageUtilization: 70}
"""

DISRUPTION = """\
# While nodes are emptied, one replica at least stays.
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: kerascnn-serving
spec:
  maxUnavailable: 1
  selector:
    matchLabels: {app.kubernetes.io/name: kerascnn-serving}
"""

KUSTOMIZATION = """\
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources:
$resources
"""

INFERENCE_SERVICE = """\
# TensorFlow Serving, run by KServe, serves the newest version in the folder.
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata:
  name: $service
  annotations:
    # A Deployment with an autoscaler on the CPU; Knative scales on requests instead.
    serving.kserve.io/deploymentMode: Standard  # before 0.16: RawDeployment
spec:
  predictor:
    minReplicas: $replicas
    maxReplicas: $most
    scaleMetric: cpu
    scaleTarget: 70
    model:
      modelFormat: {name: tensorflow, version: "2"}
      protocolVersion: v1
      # KServe's own default is older than the exporter, and cannot read its versions.
      runtimeVersion: "$tag"
      storageUri: pvc://kerascnn-models/$name
      args: ["--enable_batching=true"]
      resources:
        requests: {cpu: "$cpus", memory: 1Gi}
        limits: {cpu: "$cpus", memory: 2Gi}
"""
