package traced_test

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/fault"
	"github.com/freshet-io/freshet/ufs/mem"
	"github.com/freshet-io/freshet/ufs/traced"
	"github.com/freshet-io/freshet/ufs/ufstest"
)

func TestConforms(t *testing.T) {
	ufstest.Run(t, ufstest.InMemory(mem.Local, func(_ *testing.T, fs ufs.FS) ufs.FS { return traced.New(fs, noop.NewTracerProvider()) }))
}

// text renders a span with its attributes in order.
func text(s trace.ReadOnlySpan) string {
	var attrs []string
	for _, a := range s.Attributes() {
		attrs = append(attrs, strings.TrimPrefix(string(a.Key), "freshet.ufs.")+"="+a.Value.String())
	}
	slices.Sort(attrs)
	status := ""
	if s.Status().Code == codes.Error {
		status = " FAILED " + s.Status().Description
	}
	return s.Name() + " " + strings.Join(attrs, " ") + status
}

func TestSpans(t *testing.T) {
	t.Parallel()
	rec := tracetest.NewSpanRecorder()
	tp := trace.NewTracerProvider(trace.WithSpanProcessor(rec))
	store := mem.New(mem.Options{Mode: mem.Local})
	faults := fault.New(store.FS(""))
	fs := traced.New(faults, tp)
	ctx, parent := tp.Tracer("test").Start(t.Context(), "parent")

	const secret = "secret-key"
	w, err := fs.Create(ctx, secret, ufs.CreateOptions{Size: 5})
	must(t, err)
	_, err = io.WriteString(w, "hello")
	must(t, err)
	_, err = w.Commit(ctx)
	must(t, err)
	r, _, err := fs.Open(ctx, secret, ufs.OpenOptions{Offset: 1, Length: -1})
	must(t, err)
	_, err = io.ReadAll(r)
	must(t, err)
	must(t, r.Close())
	for _, err := range fs.List(ctx, "", ufs.ListOptions{Recursive: true}) {
		must(t, err)
	}
	_, _ = fs.Stat(ctx, "none")
	faults.Add(fault.Rule{Err: freshet.Errorf(freshet.KindUnavailable, "dial", "", "token %s refused", secret)})
	_ = fs.Remove(ctx, secret, ufs.RemoveOptions{})
	parent.End()

	want := []string{
		"ufs.create key_length=10 kind=mem op=create result=ok",
		"ufs.commit bytes=5 key_length=10 kind=mem op=commit result=ok",
		"ufs.open key_length=10 kind=mem offset=1 op=open result=ok",
		"ufs.read bytes=4 key_length=10 kind=mem offset=1 op=read result=ok",
		"ufs.list entries=1 key_length=0 kind=mem op=list recursive=true result=ok",
		"ufs.stat key_length=4 kind=mem op=stat result=not_exist",
		"ufs.remove key_length=10 kind=mem op=remove recursive=false result=unavailable FAILED unavailable",
	}
	var got []string
	for _, s := range rec.Ended() {
		if strings.Contains(fmt.Sprintf("%v %v %v", s.Attributes(), s.Events(), s.Status()), secret) {
			t.Errorf("the span %s tells a key or the text of an error", s.Name())
		}
		if s.Name() == "parent" {
			continue
		}
		got = append(got, text(s))
		if s.Parent().SpanID() != parent.SpanContext().SpanID() {
			t.Errorf("%s is not a child of the caller's span", s.Name())
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n %s\nwant\n %s", strings.Join(got, "\n "), strings.Join(want, "\n "))
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
