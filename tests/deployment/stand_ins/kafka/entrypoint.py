"""Each KAFKA_A_B is the property a.b; the storage is formatted at the first start."""

import os
import subprocess
from pathlib import Path

told = {name.removeprefix("KAFKA_").lower().replace("_", "."): value for name, value in os.environ.items() if name.startswith("KAFKA_")}
java = ["java", *told.pop("heap.opts", "").split(), "-XX:+UseSerialGC", "-Dlog4j2.level=WARN", "-cp", "/opt/kafka/libs/*"]
properties = Path("/tmp/server.properties")
properties.write_text("".join(f"{name}={value}\n" for name, value in told.items()))
if not (Path(told["log.dirs"]) / "meta.properties").exists():
    subprocess.run([*java, "kafka.tools.StorageTool", "format", "-t", os.environ.get("CLUSTER_ID", "5L6g3nShT-eMCtK--X86sw"), "-c", str(properties)], check=True)
os.execvp("java", [*java, "kafka.Kafka", str(properties)])
