package rest_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/gateway/rest"
	"github.com/freshet-io/freshet/rpc"
)

// Embedded under names that are not those of their methods.
type (
	otherMounts   interface{ rpc.Mounts }
	otherPolicies interface{ rpc.Policies }
)

// asked notes the path of each change.
type asked struct {
	rpc.Namespace
	otherMounts
	otherPolicies

	path freshet.Path
}

func (a *asked) Mkdir(_ context.Context, q freshet.MkdirQuery) (freshet.Completed, error) {
	a.path = q.Path
	return freshet.Completed{}, nil
}

func (a *asked) Rename(_ context.Context, q freshet.RenameQuery) (freshet.Completed, error) {
	a.path = q.Path + "→" + q.Target
	return freshet.Completed{}, nil
}

func (a *asked) Remove(_ context.Context, q freshet.RemoveQuery) (freshet.Completed, error) {
	a.path = q.Path
	return freshet.Completed{}, nil
}

func (a *asked) SetAttr(_ context.Context, q freshet.SetAttrQuery) (freshet.Completed, error) {
	a.path = q.Path
	return freshet.Completed{}, nil
}

func (a *asked) Sync(_ context.Context, p freshet.Path, _ bool, report func(freshet.SyncProgress) error) error {
	a.path = p
	return report(freshet.SyncProgress{Done: true})
}

func (a *asked) AddMount(_ context.Context, c freshet.MountChange) (freshet.MountAnswer, error) {
	a.path = c.Path
	return freshet.MountAnswer{}, nil
}

func (a *asked) UpdateMount(_ context.Context, c freshet.MountChange) (freshet.MountAnswer, error) {
	a.path = c.Path
	return freshet.MountAnswer{}, nil
}

func (a *asked) SetPolicy(_ context.Context, p freshet.SyncPolicy, _ bool) (freshet.SyncPolicy, error) {
	a.path = p.Path
	return p, nil
}

type bodyRoute struct{ method, route, body, suffix string }

// bodyRoutes are all routes that take JSON, with a body that lacks the path.
func bodyRoutes() []bodyRoute {
	return []bodyRoute{
		{"POST", "/v1/mkdir", `{"parents":true}`, ""},
		{"POST", "/v1/rename", `{"target":"/t"}`, "→/t"},
		{"POST", "/v1/remove", `{}`, ""},
		{"POST", "/v1/setattr", ` { "mode": 384 } `, ""},
		{"POST", "/v1/sync", ``, ""},
		{"POST", "/v1/mounts", `{"ufs":"s3://b"}`, ""},
		{"PATCH", "/v1/mounts", `{"readOnly":true}`, ""},
		{"PUT", "/v1/sync-policies", `{"interval":"5s"}`, ""},
	}
}

func TestPathOfARouteWithABodyMayBeInTheQuery(t *testing.T) {
	a := &asked{}
	api, err := rest.NewAPI(t.Context(), rest.Services{
		Namespace: rpc.NewNamespaceServer(a, nil), Mounts: rpc.NewMountServer(a, nil), Policies: rpc.NewPolicyServer(a, nil),
		Cluster: rpc.NewClusterServer(nil, nil, nil),
	})
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/", api)
	mux.Handle("/v1/sync", rest.NewSync(a))
	s := httptest.NewServer(rest.WithRequestID(mux))
	t.Cleanup(s.Close)
	for _, r := range bodyRoutes() {
		t.Run(r.method+r.route, func(t *testing.T) {
			b := &bed{url: s.URL, t: t, http: s.Client()}
			with := func(path string) string { // the body, with the path
				inner := strings.TrimSuffix(strings.TrimPrefix(strings.TrimSpace(r.body), "{"), "}")
				if inner != "" {
					inner += ","
				}
				return `{` + inner + `"path":"` + path + `"}`
			}
			for name, tc := range map[string]struct{ query, body, want string }{
				"query":         {"?path=/d/f", r.body, "/d/f"},
				"body":          {"", with("/d/f"), "/d/f"},
				"both the same": {"?path=/d/f", with("/d/f"), "/d/f"},
				"any name":      {"?path=/%22%5C%26%3C%C3%A9+x", r.body, `/"\&<é x`},
			} {
				a.path = ""
				if got := b.do(r.method, r.route+tc.query, tc.body); got.StatusCode != http.StatusOK || string(a.path) != tc.want+r.suffix {
					t.Errorf("%s: %d, of %q: %s", name, got.StatusCode, a.path, got.body)
				}
			}
			a.path = ""
			for name, tc := range map[string]struct{ query, body, words string }{
				"two that differ":  {"?path=/d/f", with("/d/g"), "give one of them"},
				"none in the body": {"?path=/d/f", `{"path":null}`, "give one of them"},
				"another field":    {"?path=/d/f&dry_run=true", r.body, "dry_run"},
				"another alone":    {"?recursive=true", with("/d/f"), "recursive"},
				"path twice":       {"?path=/d/f&path=/d/f", r.body, "2 times"},
				"broken escape":    {"?path=/%zz", r.body, "%zz"},
				"not UTF-8":        {"?path=/%ff", r.body, "UTF-8"},
				"no path":          {"?path=d", r.body, "does not start"},
				"not an object":    {"?path=/d/f", `["x"]`, "object"},
				"null":             {"?path=/d/f", `null`, "object"},
				"more than JSON":   {"?path=/d/f", `{} {}`, "object"},
				"twice in body":    {"?path=/d/f", `{"path":"/d/g","path":"/d/f"}`, "duplicate"},
				"unknown field":    {"?path=/d/f", `{"pth":"/d/f"}`, "pth"},
			} {
				got := b.do(r.method, r.route+tc.query, tc.body)
				if b.wantError(got, http.StatusBadRequest, freshet.KindInvalid, tc.words); a.path != "" {
					t.Errorf("%s: done to %s", name, a.path)
				}
			}
			b.wantError(b.do(r.method, r.route+"?path=/d/f", `{"x":"`+strings.Repeat("x", 1<<20)+`"}`), http.StatusRequestEntityTooLarge, freshet.KindInvalid)
		})
	}
}
