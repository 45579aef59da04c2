//! cuDNN's state of a device, and the addresses of tensors.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use candle_core::backend::BackendStorage;
use candle_core::cuda_backend::cudarc::cudnn::{CudnnDataType, result, sys};
use candle_core::cuda_backend::cudarc::driver::{
    CudaSlice, CudaStream, CudaView, DeviceRepr, ValidAsZeroBits,
};
use candle_core::cuda_backend::{CudaDType, CudaDevice, DeviceId};
use candle_core::op::BackpropOp;
use candle_core::{CudaStorage, Error, Layout, Result, Shape, Storage, StorageRef, Tensor};
use half::bf16;

use super::conv::Plans;

/// What activations may be.
pub(super) trait Element: CudaDType + CudnnDataType + DeviceRepr + ValidAsZeroBits {
    /// The type of sums, factors, scales, shifts and statistics.
    type Wide: CudaDType + CudnnDataType + DeviceRepr + ValidAsZeroBits + Copy;
    const ZERO: Self::Wide;
    const ONE: Self::Wide;
    /// Which units convolutions may use.
    const MATH: sys::cudnnMathType_t;
}

impl Element for f32 {
    type Wide = f32;
    const ZERO: f32 = 0.0;
    const ONE: f32 = 1.0;
    /// With TF32.
    const MATH: sys::cudnnMathType_t = sys::cudnnMathType_t::CUDNN_DEFAULT_MATH;
}

impl Element for f64 {
    type Wide = f64;
    const ZERO: f64 = 0.0;
    const ONE: f64 = 1.0;
    const MATH: sys::cudnnMathType_t = sys::cudnnMathType_t::CUDNN_DEFAULT_MATH;
}

impl Element for bf16 {
    type Wide = f32;
    const ZERO: f32 = 0.0;
    const ONE: f32 = 1.0;
    const MATH: sys::cudnnMathType_t = sys::cudnnMathType_t::CUDNN_TENSOR_OP_MATH;
}

/// Calls a function of an [`Element`] for the type of a storage.
macro_rules! by_dtype {
    ($dtype:expr, $op:literal, $function:ident ( $($argument:expr),* )) => {
        match $dtype {
            candle_core::DType::F32 => $function::<f32>($($argument),*),
            candle_core::DType::F64 => $function::<f64>($($argument),*),
            candle_core::DType::BF16 => $function::<half::bf16>($($argument),*),
            dtype => Err(candle_core::Error::UnsupportedDTypeForOp(dtype, $op).bt()),
        }
    };
}
pub(super) use by_dtype;

/// cuDNN's state of one device, for one thread.
pub(super) struct Handle {
    pub(super) raw: sys::cudnnHandle_t,
    pub(super) stream: Arc<CudaStream>,
    /// Convolutions that were planned.
    pub(super) plans: Plans,
}

thread_local! {
    /// cuDNN lets one thread at a time use a handle.
    static HANDLES: RefCell<HashMap<DeviceId, Rc<Handle>>> = RefCell::default();
}

impl Handle {
    /// This thread's handle of a device.
    pub(super) fn of(device: &CudaDevice) -> Result<Rc<Self>> {
        HANDLES.with_borrow_mut(|handles| {
            if let Some(handle) = handles.get(&device.id()) {
                // Another device may have been this thread's since.
                handle.stream.context().bind_to_thread()?;
                return Ok(handle.clone());
            }
            let handle = Rc::new(Self::new(device.cuda_stream())?);
            handles.insert(device.id(), handle.clone());
            Ok(handle)
        })
    }

    fn new(stream: Arc<CudaStream>) -> Result<Self> {
        stream.context().bind_to_thread()?;
        let handle = Self {
            raw: result::create_handle()?,
            stream,
            plans: Plans::default(),
        };
        // SAFETY: both are alive; the handle keeps its stream.
        unsafe { result::set_stream(handle.raw, handle.stream.cu_stream().cast()) }?;
        Ok(handle)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: created in `new`, destroyed once. At the end of a process the driver may be gone: nothing to be done.
        let _ = unsafe { result::destroy_handle(self.raw) };
    }
}

/// The values of a contiguous tensor.
pub(super) fn view<'a, T: CudaDType>(
    storage: &'a CudaStorage,
    layout: &Layout,
) -> Result<CudaView<'a, T>> {
    match layout.contiguous_offsets() {
        Some((from, to)) => Ok(storage.as_cuda_slice::<T>()?.slice(from..to)),
        None => Err(Error::RequiresContiguous { op: "cudnn" }.bt()),
    }
}

/// A tensor on a CUDA device whose values are lent.
pub(super) struct Lent<'a> {
    storage: StorageRef<'a>,
    layout: &'a Layout,
}

impl<'a> Lent<'a> {
    pub(super) fn new(tensor: &'a Tensor) -> Self {
        let (storage, layout) = tensor.storage_and_layout();
        Self { storage, layout }
    }

    fn storage(&self) -> Result<&CudaStorage> {
        match &*self.storage {
            Storage::Cuda(storage) => Ok(storage),
            _ => candle_core::bail!("cuDNN computes on CUDA devices only"),
        }
    }

    pub(super) fn device(&self) -> Result<CudaDevice> {
        Ok(device(self.storage()?))
    }

    pub(super) fn view<T: CudaDType>(&self) -> Result<CudaView<'_, T>> {
        view(self.storage()?, self.layout)
    }
}

/// The device of a storage.
pub(super) fn device(storage: &CudaStorage) -> CudaDevice {
    BackendStorage::device(storage).clone()
}

/// A tensor, without history, of values that were computed.
pub(super) fn tensor<T: CudaDType>(
    values: CudaSlice<T>,
    device: &CudaDevice,
    shape: impl Into<Shape>,
) -> Tensor {
    let storage = Storage::Cuda(T::wrap_cuda_slice(values, device.clone()));
    Tensor::from_storage(storage, shape, BackpropOp::none(), false)
}
