// Package journal owns the replicated log of a cluster: proposing commands of
// package namespace through Raft, applying what is committed to the state, and
// saying from which applied index on a read is linearizable. It is the only
// package that knows Raft and its stores.
//
// It never looks into a command, never decides what a state means, and opens no
// port: the listener and the dialer, and so TLS, belong to its caller.
//
// # Proposals
//
// Propose puts commands into a bounded queue. A few workers (Options.InFlight)
// each take what has queued up, at most Options.MaxBatch commands, and propose it
// as one log entry. Nothing waits for company: a batch is what came in while the
// entries before it were being written. A full queue answers KindExhausted, so
// that load never starves Raft itself.
//
// An error of Propose says whether the commands may still take effect: see
// OutcomeUnknown. Without it they were not, and never will be, applied.
//
// # Reads
//
// ReadBarrier answers from the leader's lease and costs no message. The lease is
// the time, measured from the *start* of a heartbeat's call, for which a quorum of
// voters can't have elected another leader: a voter that has answered a heartbeat
// refuses every vote until its heartbeat timeout has passed without another. It is
// shorter (Options.LeaseFor) than the leader's own lease timeout and than the
// shortest election timeout, with a margin for clocks of different rates, and is
// read from a clock that also counts the time a machine was suspended. The
// library's own confirmation is not used as the start of a lease, because it
// counts answers to heartbeats that were sent before it was asked for; the
// transport is wrapped instead, and the calls are timed there.
//
// Three cases would break that promise and are closed here: a voter that restarts
// has forgotten whose heartbeat it answered, so Run waits as long as a lease can
// last before it takes part; a leadership transfer lets a voter pass over the
// leader, so after one was begun the term has no lease any more; and successive
// changes of the membership are serialized with the computation of the quorum.
//
// Without a lease, and in the strict mode (Verify), a read waits for a round of
// heartbeats that began after the read did; all reads that wait share a round.
//
// Neither answers before the first barrier of the leader's term has been applied
// (C18): until then a new leader may not know of entries that the old one
// acknowledged.
//
// # Elections
//
// A follower stands for election when it has heard nothing of the leader for
// Options.Heartbeat. Raft looks at that silence only now and then; watchLeader has it
// look in time, so that a long silence can be tolerated and a dead leader be replaced
// soon after all the same. A leader gives up after the same time without a quorum.
//
// # Snapshots
//
// The state is durable by itself and holds the index that it has applied. So a
// local snapshot is only "flush the state, then record index, term and members";
// the log may then be truncated, and a restart restores nothing. Only when a
// follower lags behind the log is the live state dumped, into a file, and sent.
// That dump may be newer than the recorded index; entries which the state has
// applied already are skipped. A received dump is checked as a whole (length,
// checksum, format, cluster) before the state is touched, and stays on disk until
// the state has taken it over, so that a crash in between repeats it. While a member
// is brought up in this way the part of the log that it will need is not truncated.
// The log is truncated by the number of entries, which Raft does, and by their bytes
// (Options.LogBytes), which this package does.
//
// Restore is the other way in which a state is replaced: an operator's snapshot is
// taken over by the leader, in place of its state, and by the others as a dump.
package journal
