//! Calls of cuDNN that write one tensor.

use std::ffi::c_void;

use candle_core::Result;
use candle_core::cuda_backend::cudarc::cudnn::CudnnError;
use candle_core::cuda_backend::cudarc::driver::{CudaSlice, CudaView, DevicePtr, DevicePtrMut};

use super::handle::{Element, Handle};

/// What cuDNN is given: factors on the host, values on the device.
pub(super) struct Addresses<const N: usize> {
    pub(super) one: *const c_void,
    pub(super) zero: *const c_void,
    pub(super) inputs: [*const c_void; N],
    pub(super) output: *mut c_void,
    pub(super) space: *mut c_void,
}

/// `len` values that `launch` computes of `inputs`, in `bytes` of working memory. It writes all of them, as one times
/// its result plus zero times what was there.
pub(super) fn compute<T: Element, const N: usize>(
    handle: &Handle,
    inputs: [&CudaView<T>; N],
    (len, bytes): (usize, usize),
    launch: impl FnOnce(&Addresses<N>) -> std::result::Result<(), CudnnError>,
) -> Result<CudaSlice<T>> {
    let stream = &handle.stream;
    // SAFETY: `launch` writes every value.
    let mut output = unsafe { stream.alloc::<T>(len) }?;
    // SAFETY: an algorithm reads of it only what it has written. One byte where none is needed.
    let mut space = unsafe { stream.alloc::<u8>(bytes.max(1)) }?;
    let (one, zero) = (T::ONE, T::ZERO);
    {
        let inputs = inputs.map(|values| values.device_ptr(stream));
        let (output, _output) = output.device_ptr_mut(stream);
        let (space, _space) = space.device_ptr_mut(stream);
        launch(&Addresses {
            one: (&raw const one).cast(),
            zero: (&raw const zero).cast(),
            inputs: std::array::from_fn(|i| inputs[i].0 as *const c_void),
            output: output as *mut c_void,
            space: space as *mut c_void,
        })?;
    }
    Ok(output)
}
