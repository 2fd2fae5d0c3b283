package rpc

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/freshet-io/freshet"
	freshetv1 "github.com/freshet-io/freshet/proto/freshet/v1"
)

// Checker is what a coordinator does to compare cache and storage.
type Checker interface {
	// Check calls report for each difference and now and then with the progress,
	// and once with Done; an error of it cancels the check.
	Check(ctx context.Context, q freshet.CheckQuery, report func(freshet.CheckReport) error) error
}

// CheckServer adapts a Checker to the wire.
type CheckServer struct {
	freshetv1.UnimplementedCheckServiceServer
	checker Checker
	forward *Forwarder
}

// NewCheckServer returns the adapter; forward may be nil where the member always
// leads.
func NewCheckServer(c Checker, forward *Forwarder) *CheckServer {
	return &CheckServer{checker: c, forward: forward}
}

// Check implements the service.
func (s *CheckServer) Check(req *freshetv1.CheckRequest, stream grpc.ServerStreamingServer[freshetv1.CheckResponse]) error {
	q, err := CheckQueryOfWire(req)
	if err != nil {
		return StatusOf(err)
	}
	err = ForwardedChecker(s.checker, s.forward).Check(stream.Context(), q, func(r freshet.CheckReport) error {
		return stream.Send(CheckReportToWire(r))
	})
	return StatusOf(err)
}

// Check implements Checker.
func (c *Coordinator) Check(ctx context.Context, q freshet.CheckQuery, report func(freshet.CheckReport) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the stream if report fails
	stream, err := c.check.Check(ctx, &freshetv1.CheckRequest{
		Path: string(q.Path), Shallow: !q.Recursive, Repair: q.Repair, All: q.All, Limit: q.Limit,
	})
	if err != nil {
		return ErrorOf(err)
	}
	return drain(stream, func(m *freshetv1.CheckResponse) error {
		r, err := checkReportOfWire(m)
		if err != nil {
			return err
		}
		return report(r)
	})
}

// forwardedChecker lets the leader do what this member can't.
type forwardedChecker struct {
	Checker

	forward *Forwarder
}

// ForwardedChecker returns c with its Check forwarded to the leader. A leader that
// is lost half-way ends the check: what was told can't be taken back.
func ForwardedChecker(c Checker, forward *Forwarder) Checker { return forwardedChecker{c, forward} }

// Check implements Checker.
func (f forwardedChecker) Check(ctx context.Context, q freshet.CheckQuery, report func(freshet.CheckReport) error) error {
	told := false
	err := f.Checker.Check(ctx, q, func(r freshet.CheckReport) error {
		told = true
		return report(r)
	})
	switch {
	case err == nil:
		return nil
	case told && freshet.IsKind(err, freshet.KindNotLeader):
		return freshet.Errorf(freshet.KindUnavailable, "check", q.Path, "the leader changed during the check; run it again")
	case told:
		return err
	}
	fctx, conn, err := f.forward.toLeader(ctx, err)
	if err != nil {
		return err
	}
	return NewCoordinator(conn).Check(fctx, q, report)
}

// CheckQueryOfWire reads a request.
func CheckQueryOfWire(req *freshetv1.CheckRequest) (freshet.CheckQuery, error) {
	p, err := freshet.ParsePath(req.GetPath())
	if err == nil && req.GetLimit() < 0 {
		err = freshet.Errorf(freshet.KindInvalid, "check", p, "the limit %d is negative; 0 is none", req.GetLimit())
	}
	return freshet.CheckQuery{
		Path: p, Recursive: !req.GetShallow(), Repair: req.GetRepair(), All: req.GetAll(), Limit: req.GetLimit(),
	}, err
}

// CheckReportToWire translates a report of a check.
func CheckReportToWire(r freshet.CheckReport) *freshetv1.CheckResponse {
	p := r.Progress
	out := &freshetv1.CheckResponse{Progress: &freshetv1.CheckProgress{
		Directories: p.Directories, Entries: p.Entries, NotLoaded: p.NotLoaded, Skipped: p.Skipped, Served: p.Served, Excused: p.Excused,
		Repaired: p.Repaired, Failed: p.Failed, Elapsed: durationpb.New(p.Elapsed), Current: string(p.Current), Limited: p.Limited, Done: p.Done,
	}}
	if d := r.Difference; d != nil {
		out.Difference = &freshetv1.Difference{
			Path: string(d.Path), Class: d.Class, Served: d.Served, Reason: d.Reason, Repaired: d.Repaired, RepairError: d.RepairError,
		}
		if d.Cached != nil {
			out.Difference.Cached = EntryToWire(*d.Cached)
		}
		if d.Storage != nil {
			out.Difference.Storage = EntryToWire(*d.Storage)
		}
	}
	return out
}

func checkReportOfWire(m *freshetv1.CheckResponse) (freshet.CheckReport, error) {
	p := m.GetProgress()
	out := freshet.CheckReport{Progress: freshet.CheckProgress{
		Directories: p.GetDirectories(), Entries: p.GetEntries(), NotLoaded: p.GetNotLoaded(), Skipped: p.GetSkipped(), Served: p.GetServed(),
		Excused: p.GetExcused(), Repaired: p.GetRepaired(), Failed: p.GetFailed(), Elapsed: p.GetElapsed().AsDuration(),
		Current: freshet.Path(p.GetCurrent()), Limited: p.GetLimited(), Done: p.GetDone(),
	}}
	w := m.GetDifference()
	if w == nil {
		return out, nil
	}
	d := &freshet.Difference{
		Path: freshet.Path(w.GetPath()), Class: w.GetClass(), Served: w.GetServed(), Reason: w.GetReason(), Repaired: w.GetRepaired(), RepairError: w.GetRepairError(),
	}
	for _, e := range []struct {
		from *freshetv1.Entry
		to   **freshet.Info
	}{{w.GetCached(), &d.Cached}, {w.GetStorage(), &d.Storage}} {
		if e.from == nil {
			continue
		}
		info, err := EntryOfWire(e.from)
		if err != nil {
			return out, err
		}
		*e.to = &info
	}
	out.Difference = d
	return out, nil
}
