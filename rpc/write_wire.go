package rpc

import (
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/freshet-io/freshet"
	freshetv1 "github.com/freshet-io/freshet/proto/freshet/v1"
)

// TicketToWire and TicketOfWire translate what a write begins with, for the package
// that writes over a Unix socket.
func TicketToWire(t freshet.Ticket) *freshetv1.Ticket { return ticketToWire(t) }

// TicketOfWire is the inverse of TicketToWire; KindInvalid for what it never returns.
func TicketOfWire(t *freshetv1.Ticket) (freshet.Ticket, error) {
	if t == nil {
		return freshet.Ticket{}, freshet.Errorf(freshet.KindInvalid, "write file", "", "there is no ticket")
	}
	return ticketOfWire(t)
}

// OutcomeToWire and OutcomeOfWire translate what a write ends with.
func OutcomeToWire(done freshet.Completed, err error) *freshetv1.LocalOutcome {
	if err == nil {
		return &freshetv1.LocalOutcome{Done: &freshetv1.WriteFileResponse{Entry: EntryToWire(done.Info), Token: done.Token.String()}}
	}
	b, merr := proto.Marshal(status.Convert(StatusOf(err)).Proto())
	if merr != nil {
		b = []byte{0} // what is no status is an error of its own
	}
	return &freshetv1.LocalOutcome{Status: b}
}

// OutcomeOfWire is the inverse of OutcomeToWire: errors are what they would be had
// they come by gRPC.
func OutcomeOfWire(m *freshetv1.LocalOutcome) (freshet.Completed, error) {
	if len(m.GetStatus()) == 0 {
		return completedOfWire(m.GetDone().GetEntry(), m.GetDone().GetToken())
	}
	st := status.New(codes.Unknown, "").Proto()
	if err := proto.Unmarshal(m.GetStatus(), st); err != nil || st.GetCode() == 0 {
		return freshet.Completed{}, freshet.Errorf(freshet.KindDeadline, "write file", "", "the node's answer can't be read; the outcome is unknown")
	}
	return freshet.Completed{}, ErrorOf(status.FromProto(st).Err())
}
