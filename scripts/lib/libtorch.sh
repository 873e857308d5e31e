# Sourced by setup: the folder that tch links against, made of links into Python's torch.
# shellcheck shell=bash disable=SC2154 # setup sets deps

# make_libtorch FLAVOUR
# The folder is the same for cpu and cuda, so that switching between them rebuilds nothing:
# workers link libtorch_cpu alone and load libtorch_cuda.so, if any, when a model asks for a GPU.
# With cuda there is one more link, to the folder in which they find it.
make_libtorch() {
    local flavour=$1 lib=$deps/libtorch/lib site file
    # Links are relative: the folder of BULKHEAD_DEPS may be moved.
    site=$(cd "$deps" && echo python/lib/python3*/site-packages)
    mkdir -p "$lib"
    ln -s "../$site/torch/include" "$deps/libtorch/include"
    for file in torch/lib/{libtorch_cpu.so,libc10.so,libgomp.so.1} \
        nvidia/cu13/lib/{libcudart.so.13,libcupti.so.13}; do
        [[ -e $deps/$site/$file ]] || { echo "$site/$file is missing" && return 1; }
        ln -s "../../$site/$file" "$lib/"
    done
    if [[ $flavour == cuda ]]; then
        ln -s "../$site/torch/lib" "$deps/libtorch/cuda"
    fi
    make_libtorch_so "$lib"
    # torch-sys refuses a version that it was not written for.
    sed -n 's/^torch==//p' scripts/requirements/torch.txt >"$deps/libtorch/build-version"
}

# libtorch.so of the wheel is only a name for libtorch_cpu and libtorch_cuda together, and drags
# in all of CUDA. This one is a name for libtorch_cpu and libc10.
make_libtorch_so() {
    # shellcheck disable=SC2016 # the loader expands $ORIGIN
    cc -shared -fPIC -x c /dev/null -o "$1/libtorch.so" -Wl,-soname,libtorch.so \
        -L"$1" -Wl,--no-as-needed -l:libtorch_cpu.so -l:libc10.so \
        -Wl,-rpath,'$ORIGIN' -Wl,--allow-shlib-undefined
}
