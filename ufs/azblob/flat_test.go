package azblob_test

import (
	"cmp"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/retry"
)

// A tree is listed by pages of its blobs, not by directories, and a listing that goes
// on, after a failure or because it is wanted in portions, does not begin again. Each
// file has the version that a look at it finds.
func TestATreeIsListedByPages(t *testing.T) {
	b := newBucket(t)
	yes, blobs := "true", 0
	var want []string
	for i := range 30 {
		dir := fmt.Sprintf("d%02d", i)
		if i%3 == 0 { // a blob that stands for the directory, and one whose name comes between
			b.put(t, "p/"+dir, nil, map[string]*string{"hdi_isfolder": &yes})
			b.put(t, "p/"+dir+"-x", []byte("x"), nil)
			want, blobs = append(want, dir+"-x"), blobs+2
		}
		b.put(t, "p/"+dir+"/a/f", []byte("x"), nil)
		b.put(t, "p/"+dir+"/g", []byte("yy"), nil)
		want, blobs = append(want, dir+"/", dir+"/a/", dir+"/a/f", dir+"/g"), blobs+2
	}
	p := newProxy(t, b)
	fs := retry.New(p.mount(t, b, "p", map[string]string{"retries": "0"}), retry.Options{})
	if !fs.Features().FlatList {
		t.Error("the storage does not offer to list a tree at once")
	}
	const page = 7
	pages := (blobs + page - 1) / page
	for _, portion := range []int{len(want), 20, 3} {
		for _, failing := range []bool{false, true} {
			n := 0
			p.script(func(string, *http.Request) fault {
				if n++; failing && n%4 == 3 {
					return busy
				}
				return pass
			})
			got := portions(t, fs, portion, page)
			if !slices.Equal(got, want) {
				t.Errorf("portions of %d, failing %v: %q, want %q", portion, failing, got, want)
			}
			most := pages + len(want)/portion + 1
			if failing {
				most = most*4/3 + 1
			}
			if counts := p.counts(); counts["List"] > most || len(counts) != 1 {
				t.Errorf("portions of %d, failing %v: %v requests, want %d lists at most", portion, failing, counts, most)
			}
		}
	}
	for st, err := range fs.List(t.Context(), "", ufs.ListOptions{Recursive: true}) {
		if err != nil {
			t.Fatal(err)
		}
		if one, err := fs.Stat(t.Context(), st.Key); err != nil || one.Fingerprint != st.Fingerprint || one.Length != st.Length || one.Type != st.Type {
			t.Errorf("%+v, but a look at it says %+v, %v", st, one, err)
		}
	}
}

func portions(t *testing.T, fs ufs.FS, portion, page int) (all []string) {
	t.Helper()
	opts := ufs.ListOptions{Recursive: true, PageSize: page, Position: new(ufs.Position)}
	for {
		n := 0
		for st, err := range fs.List(t.Context(), "", opts) {
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, st.SortKey())
			if n++; n == portion {
				break
			}
		}
		if n < portion {
			return all
		}
		opts.StartAfter = all[len(all)-1]
	}
}

// hierarchical answers listings like an account with a hierarchical namespace: in the
// order of segments, with the type of each entry. Names that end in a slash are
// directories.
func hierarchical(t *testing.T, names ...string) *httptest.Server {
	t.Helper()
	order := func(name string) string { return strings.ReplaceAll(strings.TrimSuffix(name, "/"), "/", "\x00") }
	slices.SortFunc(names, func(a, b string) int { return cmp.Compare(order(a), order(b)) })
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		if q.Get("comp") != "list" {
			if slices.Contains(names, strings.TrimPrefix(r.URL.Path, "/acct/data/")+"/") {
				w.Header().Set("Content-Length", "0")
				w.Header().Set("ETag", `"0x8D1"`)
				w.Header().Set("x-ms-meta-hdi_isfolder", "true")
				return
			}
			w.Header().Set("x-ms-error-code", "BlobNotFound")
			w.WriteHeader(http.StatusNotFound)
			return
		}
		most, err := strconv.Atoi(q.Get("maxresults"))
		if err != nil {
			t.Error(err)
		}
		from, _ := strconv.Atoi(q.Get("marker"))
		n, next := 0, ""
		_, _ = fmt.Fprint(w, `<?xml version="1.0" encoding="utf-8"?><EnumerationResults><Blobs>`)
		for i, name := range names {
			rest, ok := strings.CutPrefix(name, q.Get("prefix"))
			if !ok || rest == "" || i < from {
				continue
			}
			kind, tag := "file", "Blob"
			if strings.HasSuffix(name, "/") {
				kind = "directory"
			}
			if slash := strings.IndexByte(rest, '/'); slash >= 0 && q.Get("delimiter") != "" {
				if tag = "BlobPrefix"; slash < len(rest)-1 {
					continue // below a directory that has an entry itself
				}
			} else {
				name = strings.TrimSuffix(name, "/")
			}
			if n == most {
				next = strconv.Itoa(i)
				break
			}
			n++
			_, _ = fmt.Fprintf(w, `<%s><Name>%s</Name><Properties><Last-Modified>Thu, 05 Nov 2026 10:11:12 GMT</Last-Modified><Etag>0x8D%d</Etag>`+
				`<ResourceType>%s</ResourceType><Content-Length>0</Content-Length></Properties></%[1]s>`, tag, name, n, kind)
		}
		_, _ = fmt.Fprintf(w, `</Blobs><NextMarker>%s</NextMarker></EnumerationResults>`, next)
	}))
	t.Cleanup(srv.Close)
	return srv
}

// An account with a hierarchical namespace lists in an order of its own. That is seen
// from its answers: also where the option is not set nothing is left out, and nothing
// comes out of order.
func TestAHierarchicalNamespaceIsSeen(t *testing.T) {
	srv := hierarchical(t, "p/d/", "p/d/f", "p/d/g/", "p/d/g/h", "p/d/g-x", "p/d-x", "p/d!/", "p/d!/f", "p/e", "p/z/")
	tree := []string{"d!/", "d!/f", "d-x", "d/", "d/f", "d/g-x", "d/g/", "d/g/h", "e", "z/"}
	for option, flat := range map[string]bool{"false": true, "true": false} {
		fs := newUnasked(t, srv.URL, map[string]string{"hierarchical": option})
		if fs.Features().FlatList != flat {
			t.Errorf("hierarchical=%s: FlatList is %v", option, !flat)
		}
		for _, page := range []int{0, 1, 2, 3} {
			got, err := names(t.Context(), fs, "", ufs.ListOptions{Recursive: true, PageSize: page})
			if err != nil || !slices.Equal(got, tree) {
				t.Errorf("hierarchical=%s, page %d: %q, %v; want %q", option, page, got, err, tree)
			}
			for i, after := range tree {
				got, err := names(t.Context(), fs, "", ufs.ListOptions{Recursive: true, PageSize: page, StartAfter: after})
				if err != nil || !slices.Equal(got, tree[i+1:]) {
					t.Errorf("hierarchical=%s, page %d, after %q: %q, %v", option, page, after, got, err)
				}
			}
			got, err = names(t.Context(), fs, "", ufs.ListOptions{PageSize: page})
			if want := []string{"d!/", "d-x", "d/", "e", "z/"}; err != nil || !slices.Equal(got, want) {
				t.Errorf("hierarchical=%s, page %d, one directory: %q, %v; want %q", option, page, got, err, want)
			}
		}
		if _, err := fs.Stat(t.Context(), "nothing"); !freshet.IsKind(err, freshet.KindNotExist) {
			t.Errorf("stat: %v", err)
		}
	}
}

// newUnasked opens the prefix p of a container of a server that asks for no secret.
func newUnasked(t *testing.T, endpoint string, options map[string]string) ufs.FS {
	t.Helper()
	options["endpoint"], options["account_key"], options["credentials"] = endpoint+"/acct", "", "anonymous"
	b := bucket{account: "acct", name: "data"}
	return b.open(t, "p", options)
}
