package rpc

import (
	"errors"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/freshet-io/freshet"
	freshetv1 "github.com/freshet-io/freshet/proto/freshet/v1"
)

// ProgressToWire translates a report of progress.
func ProgressToWire(p freshet.SyncProgress) *freshetv1.SyncResponse {
	return &freshetv1.SyncResponse{
		Directories: p.Directories, Entries: p.Entries, Changed: p.Changed, Failed: p.Failed, Fresh: p.Fresh,
		Elapsed: durationpb.New(p.Elapsed), Done: p.Done, Current: string(p.Current),
	}
}

func progressOfWire(r *freshetv1.SyncResponse) freshet.SyncProgress {
	return freshet.SyncProgress{
		Directories: r.GetDirectories(), Entries: r.GetEntries(), Changed: r.GetChanged(), Failed: r.GetFailed(), Fresh: r.GetFresh(),
		Elapsed: r.GetElapsed().AsDuration(), Done: r.GetDone(), Current: freshet.Path(r.GetCurrent()),
	}
}

// relay passes the messages of one server stream on to another.
func relay[M any](from grpc.ServerStreamingClient[M], to grpc.ServerStreamingServer[M]) error {
	for {
		m, err := from.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := to.Send(m); err != nil {
			return err
		}
	}
}
