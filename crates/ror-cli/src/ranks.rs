//! This process as one rank of a job that MPI has started.

#[cfg(feature = "mpi")]
use crate::output;
use anyhow::{Result, bail};
use ror_train::{Alone, Ranks};
use std::env;

/// Runs `work` as one rank of several, if the process was started as one, else alone. Where a rank fails
/// the whole job ends.
pub(crate) fn joined(work: impl FnOnce(Box<dyn Ranks>) -> Result<()>) -> Result<()> {
    match launched() {
        None => work(Box::new(Alone)),
        Some(processes) => join(processes, work),
    }
}

#[cfg(feature = "mpi")]
fn join(processes: Option<usize>, work: impl FnOnce(Box<dyn Ranks>) -> Result<()>) -> Result<()> {
    let (job, ranks) = ror_train::ranks::mpi::Job::join()?;
    let (rank, size) = (ranks.rank(), ranks.size());
    if let Some(processes) = processes.filter(|&processes| processes > 1 && size == 1) {
        bail!(
            "this is one of {processes} processes, but MPI knows of one: they were started by \
             another MPI than ror was built with; under Slurm try srun --mpi=pmix"
        );
    }
    if rank > 0 {
        output::be_quiet();
    }
    let result = work(Box::new(ranks));
    match result {
        Err(error) if size > 1 => {
            let error = error.context(format!("rank {rank}"));
            output::error(&format!("{error:#}"));
            job.fail();
            std::process::exit(1)
        }
        result => result,
    }
}

#[cfg(not(feature = "mpi"))]
fn join(processes: Option<usize>, work: impl FnOnce(Box<dyn Ranks>) -> Result<()>) -> Result<()> {
    match processes {
        Some(1) | None => work(Box::new(Alone)),
        Some(processes) => bail!(
            "this is one of {processes} processes of an MPI job, but this ror was built without MPI; \
             build it with `--features mpi`"
        ),
    }
}

/// Whether something started this process as a rank, and of how many, if that is known. The variables are those
/// of Open MPI, of MPICH and its kin, and of Slurm's steps.
fn launched() -> Option<Option<usize>> {
    let sizes = ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"];
    match sizes.iter().find_map(|name| number(name)) {
        Some(size) => Some(Some(size)),
        None => env::var_os("PMIX_RANK").map(|_| None),
    }
}

/// Ranks of the job on this machine.
fn on_this_machine() -> usize {
    let names = ["OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS"];
    let told = names.iter().find_map(|name| number(name));
    let slurm = || largest(&env::var("SLURM_STEP_TASKS_PER_NODE").ok()?);
    told.or_else(slurm).unwrap_or(1).max(1)
}

/// Threads for this process: as many as it has processors, which the ranks on a machine share.
pub(crate) fn threads() -> usize {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let share = || (processors / on_this_machine()).max(1);
    given_by_slurm().map_or_else(share, |given| given.min(processors))
}

/// The processors that Slurm gave to each rank, where it was told how many.
fn given_by_slurm() -> Option<usize> {
    let tasks = number("SLURM_STEP_NUM_TASKS")?;
    // mpirun within a step of Slurm's passes on what was said of the step.
    let by_mpirun = ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE"];
    if by_mpirun
        .iter()
        .filter_map(|name| number(name))
        .any(|ranks| ranks != tasks)
    {
        return None;
    }
    number("SLURM_CPUS_PER_TASK").filter(|&processors| processors > 0)
}

/// The largest of Slurm's counts: `2(x3),1` is twice three times, then once.
fn largest(counts: &str) -> Option<usize> {
    let count = |text: &str| text.split('(').next()?.trim().parse().ok();
    counts.split(',').filter_map(count).max()
}

/// The number of this rank among those on this machine.
pub(crate) fn on_this_machine_number() -> usize {
    let names = [
        "OMPI_COMM_WORLD_LOCAL_RANK",
        "MPI_LOCALRANKID",
        "SLURM_LOCALID",
    ];
    names.iter().find_map(|name| number(name)).unwrap_or(0)
}

fn number(variable: &str) -> Option<usize> {
    env::var(variable).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_ranks_of_a_machine_count() {
        for (text, expected) in [
            ("2", Some(2)),
            ("1,4(x12),2", Some(4)),
            ("2(x3)", Some(2)),
            ("", None),
            ("many", None),
        ] {
            assert_eq!(largest(text), expected, "{text}");
        }
    }
}
