package rpc

import (
	"github.com/freshet-io/freshet"
	freshetv1 "github.com/freshet-io/freshet/proto/freshet/v1"
)

func stampsToWire(in []freshet.ExplainedStamp) []*freshetv1.ExplainStamp {
	out := make([]*freshetv1.ExplainStamp, 0, len(in))
	for _, s := range in {
		out = append(out, &freshetv1.ExplainStamp{Kind: s.Kind, Path: string(s.Path), Index: s.Index, Cause: s.Cause, At: timeToWire(s.At)})
	}
	return out
}

func stampsOfWire(in []*freshetv1.ExplainStamp) []freshet.ExplainedStamp {
	var out []freshet.ExplainedStamp
	for _, s := range in {
		out = append(out, freshet.ExplainedStamp{
			Kind: s.GetKind(), Path: freshet.Path(s.GetPath()), Index: s.GetIndex(), Cause: s.GetCause(), At: timeOfWire(s.GetAt()),
		})
	}
	return out
}

func operationsToWire(in []freshet.Operation) []*freshetv1.Operation {
	out := make([]*freshetv1.Operation, 0, len(in))
	for _, o := range in {
		out = append(out, &freshetv1.Operation{
			Id: o.ID.String(), Kind: o.Kind, Path: string(o.Path), Target: string(o.Target), State: o.State, Node: o.Node,
			Since: timeToWire(o.Since), Until: timeToWire(o.Until), Remedy: o.Remedy,
		})
	}
	return out
}

func operationsOfWire(in []*freshetv1.Operation) []freshet.Operation {
	var out []freshet.Operation
	for _, o := range in {
		id, _ := freshet.ParseOpID(o.GetId()) // for display; a malformed one shows as zero
		out = append(out, freshet.Operation{
			ID: id, Kind: o.GetKind(), Path: freshet.Path(o.GetPath()), Target: freshet.Path(o.GetTarget()), State: o.GetState(), Node: o.GetNode(),
			Since: timeOfWire(o.GetSince()), Until: timeOfWire(o.GetUntil()), Remedy: o.GetRemedy(),
		})
	}
	return out
}
