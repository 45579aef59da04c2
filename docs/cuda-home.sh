#!/bin/sh
# Makes the folder that the features `cuda` and `cudnn` are built with, out of NVIDIA's packages on PyPI, so that no
# CUDA toolkit of the system is needed:
#
#     docs/cuda-home.sh DIR
#
# and prints the variables to build with. Needs Python with venv, and a C compiler.
set -eu
[ $# -eq 1 ] || { echo "usage: $0 DIR" >&2; exit 2; }
mkdir -p "$1"
dir=$(cd "$1" && pwd)

[ -x "$dir/venv/bin/pip" ] || python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check \
    'nvidia-cuda-nvcc==13.0.*' 'nvidia-nvvm==13.0.*' 'nvidia-cuda-crt==13.0.*' 'nvidia-cuda-runtime==13.0.*' \
    'nvidia-cuda-cccl==13.0.*' 'nvidia-cuda-nvrtc==13.0.*' 'nvidia-cublas==13.*' 'nvidia-curand==10.*' \
    'nvidia-cudnn-cu13==9.*'
packages=$("$dir/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')/nvidia

home="$dir/cuda"
rm -rf "$home"
mkdir -p "$home/lib/stubs"
for part in bin include nvvm; do ln -s "$packages/cu13/$part" "$home/$part"; done
ln -s lib "$home/lib64"
for library in "$packages"/cu13/lib/*.so.* "$packages"/cudnn/lib/*.so.* "$packages"/cu13/lib/*.a; do
    name=$(basename "$library")
    ln -s "$library" "$home/lib/$name"
    # The linker asks for the name without a version.
    case $name in *.so.*) ln -sf "$name" "$home/lib/${name%%.so.*}.so" ;; esac
done

# The driver's library comes with the driver. To link without one, a library with its names does, each of which
# returns CUDA_ERROR_STUB_LIBRARY.
grep -oE '\bcu[A-Z][A-Za-z0-9_]*' "$packages/cu13/include/cuda.h" "$packages/cu13/include/cudaProfiler.h" 2>/dev/null \
    | sed 's/.*://' | sort -u | sed 's/.*/int &(void) { return 34; }/' > "$home/lib/stubs/cuda.c"
cc -shared -fPIC -w -Wl,-soname,libcuda.so.1 -o "$home/lib/stubs/libcuda.so.1" "$home/lib/stubs/cuda.c"
ln -s libcuda.so.1 "$home/lib/stubs/libcuda.so"

cat <<END
export CUDA_HOME="$home"
export PATH="$home/bin:\$PATH"
export LD_LIBRARY_PATH="$home/lib\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}"
END
