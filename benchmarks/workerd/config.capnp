using Workerd = import "/workerd/workerd.capnp";

const config :Workerd.Config = (
  services = [
    (name = "main", worker = .worker),
    (name = "disk", disk = (writable = true)),  # --directory-path says where
  ],
  sockets = [(name = "http", http = (), service = "main")],  # --socket-addr says where
);

const worker :Workerd.Worker = (
  modules = [(name = "worker.js", esModule = embed "dist/worker.js")],
  compatibilityDate = "2026-03-01",
  compatibilityFlags = ["nodejs_compat"],
  durableObjectNamespaces = [
    (className = "Bench", uniqueKey = "bench", enableSql = true),
    (className = "Board", uniqueKey = "board", enableSql = true),
  ],
  durableObjectStorage = (localDisk = "disk"),
  bindings = [
    (name = "Bench", durableObjectNamespace = "Bench"),
    (name = "Board", durableObjectNamespace = "Board"),
  ],
);
