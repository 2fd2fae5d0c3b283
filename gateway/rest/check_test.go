package rest_test

import (
	"context"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/gateway/rest"
)

// checker tells one difference of what it is asked about, and then err.
type checker struct {
	asked freshet.CheckQuery
	mute  bool
	err   error
}

func (c *checker) Check(_ context.Context, q freshet.CheckQuery, report func(freshet.CheckReport) error) error {
	c.asked = q
	if c.mute {
		return c.err
	}
	d := &freshet.Difference{Path: q.Path, Class: freshet.DifferenceOnlyCache, Served: true, Cached: &freshet.Info{Path: q.Path, Length: 1 << 40}}
	if err := report(freshet.CheckReport{Difference: d}); err != nil {
		return err
	}
	if c.err != nil {
		return c.err
	}
	return report(freshet.CheckReport{Progress: freshet.CheckProgress{Served: 1, Done: true}})
}

func TestCheckStream(t *testing.T) {
	c := &checker{}
	s := httptest.NewServer(rest.WithRequestID(rest.NewCheck(c)))
	t.Cleanup(s.Close)
	b := &bed{url: s.URL, t: t, http: s.Client()}
	a := b.do("POST", "/v1/check?path=/a%20b", `{"repair":true,"all":true,"limit":"5"}`)
	lines := strings.Split(strings.TrimSpace(strings.ReplaceAll(a.body, `": `, `":`)), "\n")
	if a.StatusCode != 200 || len(lines) != 2 || !strings.Contains(lines[0], `"class":"only-cache"`) || !strings.Contains(lines[0], `"1099511627776"`) ||
		!strings.Contains(lines[1], `"done":true`) {
		t.Errorf("%d %s", a.StatusCode, a.body)
	}
	if want := (freshet.CheckQuery{Path: "/a b", Recursive: true, Repair: true, All: true, Limit: 5}); c.asked != want {
		t.Errorf("asked %+v", c.asked)
	}
	if b.do("POST", "/v1/check", `{"path":"/","shallow":true}`); c.asked.Recursive {
		t.Error("shallow is recursive")
	}
	for body, words := range map[string]string{`{"pth":"/"}`: "pth", `{"path":"x"}`: "does not start", `{"path":"/","limit":"-1"}`: "negative"} {
		b.wantError(b.do("POST", "/v1/check", body), 400, freshet.KindInvalid, words)
	}
	b.wantError(b.do("GET", "/v1/check", ""), 405, freshet.KindUnsupported)
	c.err = freshet.Errorf(freshet.KindUnavailable, "check", "/", "the storage is away")
	a = b.do("POST", "/v1/check", `{"path":"/"}`)
	if a.StatusCode != 200 || !strings.Contains(a.body, `{"error":`) || !strings.Contains(a.body, "the storage is away") {
		t.Errorf("half-way: %d %s", a.StatusCode, a.body)
	}
	c.mute = true
	b.wantError(b.do("POST", "/v1/check", `{"path":"/"}`), 503, freshet.KindUnavailable)
}
