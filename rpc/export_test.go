package rpc

import (
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"github.com/freshet-io/freshet"
	freshetv1 "github.com/freshet-io/freshet/proto/freshet/v1"
)

// Direct is an answer in the two forms that must say the same: written and read by
// itself, and by way of its message.
type Direct struct {
	Name    string
	Message func() proto.Message
	// Read reads bytes as the answer itself does; Reference makes the same of the
	// message. Both return what Write and ToMessage take.
	Read      func(b []byte) (any, error)
	Reference func(m proto.Message) (any, error)
	Write     func(v any) ([]byte, error)
	ToMessage func(v any) proto.Message
}

func write(v encoder) ([]byte, error) {
	data, err := Codec().Marshal(v)
	return data.Materialize(), err
}

func read(b []byte, v decoder) error {
	return Codec().Unmarshal(mem.BufferSlice{mem.SliceBuffer(b)}, v)
}

func referenceStatus(e *freshetv1.Entry) (freshet.Status, error) {
	info, err := EntryOfWire(e)
	if err != nil {
		return freshet.Status{}, err
	}
	f, err := freshnessOfWire(e.GetFreshness())
	return freshet.Status{Info: info, Freshness: f, CachedBytes: e.GetCachedBytes()}, err
}

func referencePage(r *freshetv1.ListResponse) (freshet.ListPage, error) {
	page := freshet.ListPage{NextPageToken: r.GetNextPageToken()}
	for _, e := range r.GetEntries() {
		info, err := EntryOfWire(e)
		if err != nil {
			return page, err
		}
		page.Entries = append(page.Entries, info)
	}
	return page, nil
}

// DirectAnswers returns all answers that write and read themselves. Forms of
// values are compared as the messages that ToMessage makes.
func DirectAnswers() []Direct {
	return []Direct{
		{
			Name: "stat", Message: func() proto.Message { return new(freshetv1.StatResponse) },
			Read: func(b []byte) (any, error) {
				var a answerStat
				err := read(b, &a)
				return a.status, errOr(err, a.err)
			},
			Reference: func(m proto.Message) (any, error) {
				r := m.(*freshetv1.StatResponse)
				st, err := referenceStatus(r.GetEntry())
				st.Lease = leaseTimeOfWire(r.GetLeaseNs())
				return st, err
			},
			Write: func(v any) ([]byte, error) { return write(&answerStat{status: v.(freshet.Status)}) },
			ToMessage: func(v any) proto.Message {
				return &freshetv1.StatResponse{Entry: statusToWire(v.(freshet.Status)), LeaseNs: leaseTimeToWire(v.(freshet.Status).Lease)}
			},
		},
		{
			Name: "batch", Message: func() proto.Message { return new(freshetv1.BatchStatResponse) },
			Read: func(b []byte) (any, error) {
				var a answerBatch
				err := read(b, &a)
				return a.outcomes, errOr(err, a.err)
			},
			Reference: func(m proto.Message) (any, error) {
				var out []freshet.StatOutcome
				for _, r := range m.(*freshetv1.BatchStatResponse).GetResults() {
					var o freshet.StatOutcome
					var err error
					if e := r.GetError(); e != nil {
						kind, known := freshet.ParseKind(e.GetKind())
						if !known {
							kind = freshet.KindInternal
						}
						o.Err = &freshet.Error{Kind: kind, Err: &remoteError{kind: kind, message: r.GetMessage()}}
					} else if o.Status, err = referenceStatus(r.GetEntry()); err != nil {
						return nil, err
					}
					out = append(out, o)
				}
				return out, nil
			},
			Write: func(v any) ([]byte, error) {
				outcomes := v.([]freshet.StatOutcome)
				return write(&answerBatch{outcomes: outcomes, paths: make([]string, len(outcomes))})
			},
			ToMessage: func(v any) proto.Message {
				out := new(freshetv1.BatchStatResponse)
				for _, o := range v.([]freshet.StatOutcome) {
					out.Results = append(out.Results, outcomeToWire(&o, ""))
				}
				return out
			},
		},
		{
			Name: "list", Message: func() proto.Message { return new(freshetv1.ListResponse) },
			Read: func(b []byte) (any, error) {
				var a answerPage
				err := read(b, &a)
				return a.page, errOr(err, a.err)
			},
			Reference: func(m proto.Message) (any, error) { return referencePage(m.(*freshetv1.ListResponse)) },
			Write:     func(v any) ([]byte, error) { return write(&answerPage{page: v.(freshet.ListPage)}) },
			ToMessage: func(v any) proto.Message { return pageToWire(v.(freshet.ListPage)) },
		},
		{
			Name: "stream", Message: func() proto.Message { return new(freshetv1.ListStreamResponse) },
			Read: func(b []byte) (any, error) {
				a := answerPage{streamed: true}
				err := read(b, &a)
				return a.page, errOr(err, a.err)
			},
			Reference: func(m proto.Message) (any, error) {
				return referencePage(m.(*freshetv1.ListStreamResponse).GetPage())
			},
			Write: func(v any) ([]byte, error) {
				return write(&answerPage{page: v.(freshet.ListPage), streamed: true})
			},
			ToMessage: func(v any) proto.Message {
				return &freshetv1.ListStreamResponse{Page: pageToWire(v.(freshet.ListPage))}
			},
		},
	}
}

func errOr(a, b error) error {
	if a != nil {
		return a
	}
	return b
}
