/** The default configuration file with its explanations; `config default` prints it. */

/** deploy/config.toml is this text; a test compares them and parses it to the defaults. */
export const DEFAULT_CONFIG_TOML = `# faasnet-snapshotter. Every key is optional; the values below are the defaults.

# Persistent data: image maps, cached blocks, snapshots.
root = "/var/lib/faasnet"
# Sockets and mount points; gone after a reboot.
state = "/run/faasnet"
# The socket that containerd's proxy plugin names. Empty: STATE/faasnet.sock.
address = ""
# containerd's own socket, to find an image by its chain ID. Empty: $CONTAINERD_ADDRESS,
# else /run/containerd/containerd.sock.
containerd_address = ""
# error, warn, info or debug. debug names paths and references.
log_level = "info"

[mount]
# auto tries erofs, loop, fuse in this order and says which one it took and why.
mode = "auto"

[cache]
# The most that cached blocks may occupy. 0: keep nothing.
quota_bytes = 34359738368
# Blocks are evicted or passed through uncached before the file system has less than this.
min_free_bytes = 1073741824
# Recently decoded blocks in memory, for reads that the disk cannot keep.
memory_bytes = 8388608
# Also keep blocks as fetched (compressed), for other nodes.
keep_blobs = false

[background]
# Fetch the rest of a mounted image, below every reader, so that it needs no registry.
enabled = true
delay_seconds = 30
rate_bytes_per_second = 52428800

[registry]
# containerd's certs.d folders with hosts.toml.
hosts_dir = "/etc/containerd/certs.d"
# Folder of docker's config.json. Empty: $DOCKER_CONFIG, else ~/.docker.
docker_config_dir = ""
# Registries with a port ("registry.example:5000") that are tried when a client passes no image
# name: containerd's label keeps the host but not the port.
known_hosts = []

[read]
# How long a read waits for the registry before it fails with EIO.
limit_seconds = 120

[maps]
# Layers that are indexed at once.
builders = 2

[peer]
# Nodes fetch an image's blocks from each other, along one tree for each image.
enabled = false
# Unique in the cluster. Empty: the host's name.
name = ""
# The cluster's key: 32 bytes in base64 or hex, one a line; the first one seals, all open. Whoever
# has it can be every node. Read again when it changes.
key_file = ""
# UDP for membership, TCP for blocks.
bind = "0.0.0.0:7411"
# What others are told to use. Empty: the address of the route to the first seed, the port of bind.
advertise = ""
# TCP port of the block server. 0: the port of bind.
exchange_port = 0
# "host:port" (all addresses of a name), "_faasnet._udp.example.org" (its SRV records), or the path of
# a file with one a line.
seeds = []
# Nodes of a zone feed each other; one of them fetches across. Empty: one zone for all.
zone = ""
# Timing of the membership protocol: lan, or local for many nodes on one machine.
preset = "lan"
# A loopback address ("127.0.0.1:7412") where programs of this machine read cached images as from a
# registry, and the manifests of all others with the nodes' credentials; "faasnet peers mirror" prints
# containerd's lines for it. Empty: none.
mirror = ""
# How long members believe what the registry said that a tag means. 0: it is asked each time.
tag_ttl_seconds = 30
# The most that is sent to other nodes. 0: no limit.
upload_bytes_per_second = 0
`;
