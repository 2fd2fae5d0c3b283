package faces_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/freshet-io/freshet/test/e2e"
)

func restData(t *testing.T, w *e2e.World) {
	node, coord := "http://"+w.A.NodeHTTP[0], "http://"+w.A.HTTP[0]
	body := strings.Repeat("0123456789", 1000)
	put := e2e.HTTP(t, "PUT", node+"/v1/data/rest/f", body).Want(t, 201, `"token"`)
	token, tag := put.Header.Get("X-Freshet-Token"), put.Header.Get("ETag")
	if token == "" || !strings.HasPrefix(tag, `"`) || put.Header.Get("X-Freshet-Fingerprint") == "" {
		t.Errorf("headers of PUT: %v", put.Header)
	}
	get := e2e.HTTP(t, "GET", node+"/v1/data/rest/f", "", "X-Freshet-After", token).Want(t, 200)
	if get.Body != body || get.Header.Get("ETag") != tag || get.Header.Get("X-Freshet-Source") != "hit" || get.Header.Get("Last-Modified") == "" {
		t.Errorf("GET: %d bytes, %v", len(get.Body), get.Header)
	}
	head := e2e.HTTP(t, "HEAD", node+"/v1/data/rest/f", "").Want(t, 200)
	if head.Header.Get("Content-Length") != "10000" || head.Header.Get("ETag") != tag || head.Body != "" {
		t.Errorf("HEAD: %v", head.Header)
	}
	for _, c := range []struct {
		name, header, value string
		status              int
		body, contentRange  string
	}{
		{"range", "Range", "bytes=10-14", 206, "01234", "bytes 10-14/10000"},
		{"suffix", "Range", "bytes=-3", 206, "789", "bytes 9997-9999/10000"},
		{"open end", "Range", "bytes=9995-", 206, "56789", "bytes 9995-9999/10000"},
		{"beyond", "Range", "bytes=10000-", 416, "", "bytes */10000"},
		{"backwards", "Range", "bytes=5-1", 200, body, ""},
		{"none at the end", "Range", "bytes=-0", 416, "", "bytes */10000"},
		{"several", "Range", "bytes=0-1,5-6", 200, body, ""},
		{"overflow", "Range", "bytes=0-99999999999999999999", 200, body, ""},
		{"same", "If-None-Match", tag, 304, "", ""},
		{"weakly the same", "If-None-Match", `"x", W/` + tag, 304, "", ""},
		{"other", "If-None-Match", `"x"`, 200, body, ""},
		{"match", "If-Match", tag, 200, body, ""},
		{"no match", "If-Match", `"x"`, 412, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := e2e.HTTP(t, "GET", node+"/v1/data/rest/f", "", c.header, c.value).Want(t, c.status)
			if c.body != "" && a.Body != c.body || a.Header.Get("Content-Range") != c.contentRange {
				t.Errorf("%d bytes %.20q, Content-Range %q", len(a.Body), a.Body, a.Header.Get("Content-Range"))
			}
		})
	}
	redirected := e2e.HTTP(t, "GET", coord+"/v1/data/rest/f?read_type=no_cache", "").Want(t, 307)
	if to := redirected.Header.Get("Location"); to != node+"/v1/data/rest/f?read_type=no_cache" {
		t.Errorf("Location %q", to)
	}
	if err := w.Storage.Put(t.Context(), "rest/cold", []byte("cold")); err != nil {
		t.Fatal(err)
	}
	e2e.HTTP(t, "GET", coord+"/v1/list?path=/rest&sync_interval=always", "").Want(t, 200, "/rest/cold")
	for _, want := range []string{"ufs", "hit"} {
		a := e2e.HTTP(t, "GET", node+"/v1/data/rest/cold", "").Want(t, 200)
		if got := a.Header.Get("X-Freshet-Source"); got != want || a.Body != "cold" {
			t.Errorf("source %q, want %q: %q", got, want, a.Body)
		}
		e2e.AwaitCached(t, w.A, "rest/cold", int64(len("cold")))
	}
	unchanged(t, w, func() {
		e2e.HTTP(t, "GET", node+"/v1/data/rest/none", "").Want(t, 404, `"not_exist"`, `"request_id"`)
		e2e.HTTP(t, "GET", node+"/v1/data/rest", "").Want(t, 412, "directory")
		e2e.HTTP(t, "GET", node+"/v1/data/rest/f?sync_intervall=always", "").Want(t, 400, "sync_intervall")
		e2e.HTTP(t, "GET", node+"/v1/data/rest/f", "", "X-Freshet-After", "nonsense").Want(t, 400, "token")
		e2e.HTTP(t, "PUT", node+"/v1/data/rest/new", "x", "If-None-Match", "*").Want(t, 501, "If-None-Match")
		e2e.HTTP(t, "PUT", node+"/v1/data/rest/new?write_type=never", "x").Want(t, 400, "must_cache")
		e2e.HTTP(t, "PUT", node+"/v1/data/rest/new", "x", "Content-Encoding", "gzip").Want(t, 415)
		e2e.HTTP(t, "POST", node+"/v1/data/rest/f", "x").Want(t, 405)
		e2e.HTTP(t, "DELETE", node+"/v1/data/rest/f", "").Want(t, 405)
	})
}

func restMeta(t *testing.T, w *e2e.World) {
	coord := "http://" + w.A.HTTP[0]
	var made struct {
		Token string
		Entry struct{ Path, Kind string }
	}
	a := e2e.HTTP(t, "POST", coord+"/v1/mkdir", `{"path":"/meta/d","parents":true}`).Want(t, 200)
	a.JSON(t, &made)
	if made.Entry.Path != "/meta/d" || made.Entry.Kind != "directory" || made.Token == "" || a.Header.Get("X-Freshet-Token") != made.Token {
		t.Errorf("mkdir: %+v", made)
	}
	e2e.HTTP(t, "GET", coord+"/v1/status?path=/meta/d", "", "X-Freshet-After", made.Token).Want(t, 200, `"directory"`)
	for i := range 5 {
		e2e.HTTP(t, "PUT", fmt.Sprintf("http://%s/v1/data/meta/d/f%d", w.A.NodeHTTP[0], i), "x").Want(t, 201)
	}
	var page struct {
		Entries       []struct{ Path string }
		NextPageToken string
	}
	var got []string
	for url := coord + "/v1/list?path=/meta/d&page_size=2"; ; {
		e2e.HTTP(t, "GET", url+"&page_token="+page.NextPageToken, "").Want(t, 200).JSON(t, &page)
		for _, e := range page.Entries {
			got = append(got, strings.TrimPrefix(e.Path, "/meta/d/"))
		}
		if page.NextPageToken == "" || len(got) > 5 {
			break
		}
	}
	if fmt.Sprint(got) != "[f0 f1 f2 f3 f4]" {
		t.Errorf("paged listing: %v", got)
	}
	e2e.HTTP(t, "POST", coord+"/v1/rename", `{"path":"/meta/d/f0","target":"/meta/d/g0"}`).Want(t, 200, "/meta/d/g0")
	e2e.HTTP(t, "POST", coord+"/v1/setattr", `{"path":"/meta/d/g0","mode":416}`).Want(t, 200)
	e2e.HTTP(t, "GET", coord+"/v1/status?path=/meta/d/g0", "").Want(t, 200, `416`)
	e2e.HTTP(t, "GET", coord+"/v1/explain?path=/meta/d/g0&check=true", "").Want(t, 200, `"verdict"`, `"storage"`)
	e2e.HTTP(t, "POST", coord+"/v1/sync", `{"path":"/meta","recursive":true}`).Want(t, 200, `"result"`, `"done":true`)
	e2e.HTTP(t, "POST", coord+"/v1/remove", `{"path":"/meta/d/g0"}`).Want(t, 200)
	for route, word := range map[string]string{
		"/v1/mounts": `"ufs"`, "/v1/sync-policies": `"policies"`, "/v1/cluster": `"members"`, "/v1/nodes": `"live"`,
		"/v1/openapi.json": `"/v1/data/{path}"`, "/healthz": "ok", "/readyz": "ok", "/metrics": "freshet_build_info",
	} {
		a := e2e.HTTP(t, "GET", coord+route, "")
		if route == "/v1/openapi.json" {
			a.Want(t, 200, "/v1/list")
			continue
		}
		a.Want(t, 200, word)
	}
	unchanged(t, w, func() {
		e2e.HTTP(t, "GET", coord+"/v1/status?path=/meta&sync_intervall=1s", "").Want(t, 400, "sync_intervall", `"invalid"`)
		e2e.HTTP(t, "GET", coord+"/v1/status?path=/meta&sync_interval=soon", "").Want(t, 400, "soon")
		e2e.HTTP(t, "GET", coord+"/v1/status", "").Want(t, 400, "path is empty")
		e2e.HTTP(t, "GET", coord+"/v1/list?path=/meta&page_size=-1", "").Want(t, 400)
		e2e.HTTP(t, "GET", coord+"/v1/list?path=/meta&page_token=nonsense", "").Want(t, 400, "token")
		e2e.HTTP(t, "POST", coord+"/v1/mkdir", `{"path":"/meta/x","owner":"root"}`).Want(t, 400, "owner")
		e2e.HTTP(t, "POST", coord+"/v1/mkdir", `{"path":`).Want(t, 400)
		e2e.HTTP(t, "POST", coord+"/v1/mkdir", strings.Repeat("[", 10_000)).Want(t, 400)
		e2e.HTTP(t, "POST", coord+"/v1/mkdir", `{"path":"/`+strings.Repeat("x", 2<<20)+`"}`).Want(t, 413)
		e2e.HTTP(t, "POST", coord+"/v1/mkdir", "x", "Content-Encoding", "gzip").Want(t, 415)
		e2e.HTTP(t, "GET", coord+"/v1/mkdir", "").Want(t, 405)
		e2e.HTTP(t, "GET", coord+"/v1/frobnicate", "").Want(t, 404, "openapi.json")
	})
}
