"""Where a training computes: on one device, on several, or on several machines.

Every device holds the whole network and computes a part of each batch, which is filled
up with repeated images where it does not divide. They count for nothing: on JAX the
step cuts them off again (`TrainedModel.sizes`), so that it is that of one device; on
TensorFlow they have the weight 0 in the loss (`Mirrored`), but each device's batch
normalisation and dropout see them.
"""

import contextlib
import functools
import json
from collections.abc import Sequence

import keras
import numpy as np

from kerascnn.training import checkpoint
from kerascnn.training.network import logits_model

PIECE = 2**26  # bytes that go from host to host at a time
SIMULATE = {
    "jax": "JAX_NUM_CPU_DEVICES={} in the environment simulates so many on a processor",
    "tensorflow": "tf.config.set_logical_device_configuration simulates several on a "
    "processor",
}


class Place:
    """One device. What several do differently is in the classes below."""

    weighted = False  # whether a batch brings a weight for each image
    # Contexts: where variables are made, where `fit` runs, and, inside that, where one
    # device computes.
    scope = fitting = alone = staticmethod(contextlib.nullcontext)

    def __init__(self, devices: int = 1, hosts: int = 1, host: int = 0):
        self.devices = devices  # of this host
        self.hosts = hosts  # machines, or processes
        self.host = host  # which of them this one is, from 0
        self.first = host == 0  # keeps the run folder, shows, validates, measures
        self.replicas = devices * hosts

    def size(self, number: int, batch_size: int) -> int:
        """Return how many images a batch of `number` is filled up to.

        A multiple of the replicas; for a last, smaller batch another one than before:
        the size tells what to cut off.
        """
        whole = -(-number // self.replicas) * self.replicas
        if self.replicas > 1 and number < batch_size:
            whole += self.replicas * (whole == self.size(batch_size, batch_size))
        return whole

    def rows(self, number: int, batch_size: int) -> np.ndarray:
        """Return which images of a batch of `number` this host computes."""
        part = self.size(number, batch_size) // self.hosts
        return np.arange(self.host * part, (self.host + 1) * part) % number

    def weights(self, number: int, batch_size: int) -> np.ndarray:
        """Return the weight of each row: their mean over the batch is 1."""
        size = self.size(number, batch_size)
        return np.where(np.arange(size) < number, size / number, 0).astype(np.float32)

    def sizes(self, total: int, batch_size: int) -> dict[int, int]:
        """Return, by its size, what is in a batch of `total`, where it is to be cut."""
        if self.replicas == 1 or self.weighted:
            return {}
        parts = {min(batch_size, total), total % batch_size or batch_size}
        return {self.size(n, batch_size): n for n in parts}

    def broadcast(self, payload: bytes) -> bytes:
        """Return what host 0 gave; every host has to call it."""
        return payload

    def agree(self, value):
        """Return what host 0 says, of JSON; every host has to call it."""
        if self.hosts == 1:
            return value
        return json.loads(bytes(self.broadcast(json.dumps(value).encode())))


ONE = Place()


class Several(Place):
    """Several devices: a copy of the network lies on all of them, and is trained.

    The network itself is validated, on one device, and has the weights in the end.
    """

    def agree_on(self, data, precision: str) -> str:
        """Return the precision of host 0; ValueError where its images are others."""
        common = self.agree({"precision": precision, "data": data.fingerprint})
        if common["data"] != data.fingerprint:
            told = f"fingerprint {data.fingerprint} on host {self.host}"
            told += f", {common['data']} on host 0"
            raise ValueError(f"the hosts have different data: {data.title} has {told}")
        return common["precision"]

    def spread(self, model, ends):
        """Return a copy of a network, without its softmax, on all devices."""
        copy = keras.models.model_from_json(model.to_json())
        state = {f"{i}": v for i, v in enumerate(checkpoint.values(model.variables))}
        arrays = checkpoint.unpack(self.broadcast(bytes(checkpoint.pack(state))))
        checkpoint.assign(copy.variables, arrays.values())
        checkpoint.finalize_layers(copy)
        self.twins = logits_model(copy)[0], ends
        return self.twins[0]

    def hand_over(self) -> None:
        """Give the network the weights of its copy."""
        copy, own = self.twins
        with self.alone():
            checkpoint.assign(own.weights, checkpoint.values(copy.weights))
        checkpoint.finalize_layers(own)


class Mesh(Several):
    """Several devices with JAX, on one machine or more, through keras.distribution."""

    def __init__(self, devices: int, hosts: int, host: int):
        import jax

        super().__init__(devices, hosts, host)
        names = []
        for process in range(hosts):
            own = [d for d in jax.devices() if d.process_index == process]
            names += [f"{d.platform}:{d.id}" for d in own[:devices]]
        # The feed gives each host its part of a batch.
        distribution = keras.distribution.DataParallel(
            devices=names, auto_shard_dataset=False
        )
        self.scope = self.fitting = distribution.scope

    @contextlib.contextmanager
    def alone(self):
        """Leave the devices for one, inside `fitting`."""
        before = keras.distribution.distribution()
        keras.distribution.set_distribution(None)
        try:
            yield
        finally:
            keras.distribution.set_distribution(before)

    def broadcast(self, payload: bytes) -> bytes:
        """Return what host 0 gave, on every host; the others wait for it."""
        if self.hosts == 1:
            return payload
        from jax.experimental.multihost_utils import broadcast_one_to_all

        # JAX counts with 32 bits, and gets a network in pieces.
        length = np.array(divmod(len(payload), PIECE), np.int32)
        pieces, rest = map(int, broadcast_one_to_all(length))
        parts = []
        for start in range(0, pieces * PIECE + rest, PIECE):
            part = np.zeros(min(PIECE, pieces * PIECE + rest - start), np.uint8)
            if self.first:
                part[:] = np.frombuffer(payload, np.uint8)[start : start + PIECE]
            parts.append(np.asarray(broadcast_one_to_all(part), np.uint8).tobytes())
        return b"".join(parts)


class Mirrored(Several):
    """Several devices of one machine with TensorFlow: tf.distribute.MirroredStrategy.

    It divides a batch evenly, and fails or aborts the process where it cannot: every
    batch is filled up, and brings weights.
    """

    weighted = True

    def __init__(self, names: Sequence[str]):
        super().__init__(len(names))
        self.scope = _strategy(tuple(names)).scope

    def adapt(self, options: dict) -> None:
        """Change arguments of `compile` to those of batches that bring weights."""
        options["weighted_metrics"] = options.pop("metrics")
        options["steps_per_execution"] = 1  # Keras' loop fails under the strategy
        optimizer = options["optimizer"]
        if optimizer.global_clipnorm:
            clip = functools.partial(self.clip, optimizer._clip_gradients)
            optimizer._clip_gradients = clip

    def clip(self, clip, gradients: list) -> list:
        """Clip the gradients of all devices as one; Keras clips the part of each."""
        import tensorflow as tf

        context = tf.distribute.get_replica_context()
        whole = clip(context.all_reduce(tf.distribute.ReduceOp.SUM, gradients))
        return [gradient / self.replicas for gradient in whole]


@functools.cache  # a second one of the same devices would take the first one's keys
def _strategy(names: tuple[str, ...]):
    import tensorflow as tf

    own = tf.distribute.ReductionToOneDevice() if names[0].startswith("CPU") else None
    return tf.distribute.MirroredStrategy(list(names), cross_device_ops=own)


def hosts_of(hosts: "str | Sequence[str]") -> tuple[str, ...]:
    """Return the addresses "name:port" of all hosts; ValueError where one is wrong."""
    parts = hosts.split(",") if isinstance(hosts, str) else hosts
    found = tuple(part.strip() for part in parts if part.strip())
    for address in found:
        name, _, port = address.rpartition(":")
        if not name or not port.isdigit():
            told = f"with a port, a:1234,b:1234; received {address!r}"
            raise ValueError(f"hosts are addresses {told}")
    if len(set(found)) < len(found):
        raise ValueError(f"a host is named twice; received {','.join(found)}")
    return found


def connect(hosts: "str | Sequence[str]", host_id: int) -> None:
    """Connect this process with those on the other hosts; JAX only.

    `train` and `resume` do it themselves. A program that computes with Keras before
    it trains calls it first. On processors the hosts exchange gradients with Gloo.

    `hosts` has the address "name:port" of each, of which the first one coordinates;
    `host_id` tells which one this is, from 0. Raises ValueError for another backend, no
    such host, and where JAX has computed already or is connected otherwise.
    """
    hosts = hosts_of(hosts)
    backend = keras.backend.backend()
    if backend != "jax":
        told = f"set KERAS_BACKEND=jax; received {backend}"
        raise ValueError(f"several hosts need the JAX backend: {told}")
    if type(host_id) is not int or not 0 <= host_id < len(hosts):
        raise ValueError(
            f"host_id must be a whole number from 0 to {len(hosts) - 1}, the place of "
            f"this machine among the hosts; received {host_id!r}"
        )
    import jax

    if jax.distributed.is_initialized():
        if (jax.process_count(), jax.process_index()) != (len(hosts), host_id):
            own = f"host {jax.process_index()} of {jax.process_count()} already"
            told = f"received host {host_id} of {len(hosts)}: start another process"
            raise ValueError(f"this process is connected as {own}; {told}")
        return
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        keras.distribution.initialize(",".join(hosts), len(hosts), host_id)
    except RuntimeError as error:
        told = f"{','.join(hosts)}: {str(error).splitlines()[0]}"
        raise ValueError(
            f"host {host_id} cannot be connected with {told}; start all hosts, and "
            "call kerascnn.training.connect(hosts, host_id) before anything else"
        ) from error


def open_place(devices: int = 1, hosts: "str | Sequence[str]" = (), host_id: int = 0):
    """Return the `Place` where a training is to compute.

    On each of the hosts (none, or one, for this machine alone) on so many devices:
    accelerators, or what the backend makes of the processor. Raises ValueError where
    fewer are there, or the backend cannot do it.
    """
    if type(devices) is not int or devices < 1:
        raise ValueError(f"devices must be 1 or more; received {devices!r}")
    hosts = hosts_of(hosts)
    if len(hosts) > 1:
        connect(hosts, host_id)
    elif host_id:
        raise ValueError(f"host_id={host_id} needs hosts, the addresses of all of them")
    if devices == 1 and len(hosts) < 2:
        return ONE
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        names = [f"{d.platform}:{d.id}" for d in jax.local_devices()]
    elif backend == "tensorflow":
        import tensorflow as tf

        kind = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
        number = len(tf.config.list_logical_devices(kind))
        names = [f"{kind}:{i}" for i in range(number)]
    else:
        told = f"jax or tensorflow: set KERAS_BACKEND; received {backend}"
        raise ValueError(f"several devices need the backend {told}")
    if devices > len(names):
        there = f"there {'is' if len(names) == 1 else 'are'} {len(names)}"
        raise ValueError(
            f"{there} ({', '.join(names)}); received devices={devices}: ask for fewer "
            f"({SIMULATE[backend].format(devices)})"
        )
    if backend == "jax":
        return Mesh(devices, max(len(hosts), 1), host_id)
    return Mirrored(names[:devices])
