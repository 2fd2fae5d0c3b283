package s3_test

import (
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"
)

// uploads is a storage that knows multipart uploads only, takes parts of any size
// and gives ETags that are no MD5 sums.
type uploads struct {
	mu    sync.Mutex
	cond  *sync.Cond
	n     int
	parts int // stored since the start
	open  map[string]map[int][]byte
	done  map[string][]byte
	count map[string]int
}

func newUploads(t *testing.T) *uploads {
	t.Helper()
	u := &uploads{open: map[string]map[int][]byte{}, done: map[string][]byte{}, count: map[string]int{}}
	u.cond = sync.NewCond(&u.mu)
	return u
}

func (u *uploads) serve(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	id := q.Get("uploadId")
	body, _ := io.ReadAll(r.Body)
	u.mu.Lock()
	defer u.mu.Unlock()
	if _, ok := u.open[id]; id != "" && !ok {
		w.WriteHeader(http.StatusNotFound)
		_, _ = io.WriteString(w, "<Error><Code>NoSuchUpload</Code></Error>")
		return
	}
	switch {
	case r.Method == http.MethodPost && q.Has("uploads"):
		u.n++
		id = fmt.Sprint("u", u.n)
		u.open[id] = map[int][]byte{}
		_, _ = fmt.Fprintf(w, "<InitiateMultipartUploadResult><UploadId>%s</UploadId></InitiateMultipartUploadResult>", id)
	case r.Method == http.MethodPut:
		n, _ := strconv.Atoi(q.Get("partNumber"))
		u.open[id][n] = body
		u.parts++
		u.cond.Broadcast()
		w.Header().Set("ETag", fmt.Sprintf(`"opaque-%d"`, n))
	case r.Method == http.MethodDelete:
		delete(u.open, id)
		w.WriteHeader(http.StatusNoContent)
	case r.Method == http.MethodPost:
		u.complete(w, id, body)
	case q.Has("uploads"):
		u.list(w)
	case id != "":
		after, _ := strconv.Atoi(q.Get("part-number-marker"))
		_, _ = io.WriteString(w, "<ListPartsResult>")
		for n, data := range u.open[id] {
			if n > after {
				_, _ = fmt.Fprintf(w, "<Part><PartNumber>%d</PartNumber><Size>%d</Size><ETag>&quot;opaque-%d&quot;</ETag></Part>", n, len(data), n)
			}
		}
		_, _ = io.WriteString(w, "</ListPartsResult>")
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

func (u *uploads) complete(w http.ResponseWriter, id string, body []byte) {
	var in struct {
		Part []struct{ PartNumber int }
	}
	_ = xml.Unmarshal(body, &in)
	for _, p := range in.Part {
		u.done[id] = append(u.done[id], u.open[id][p.PartNumber]...)
	}
	u.count[id] = len(in.Part)
	delete(u.open, id)
	_, _ = io.WriteString(w, `<CompleteMultipartUploadResult><ETag>"opaque"</ETag></CompleteMultipartUploadResult>`)
}

func (u *uploads) list(w io.Writer) {
	_, _ = io.WriteString(w, "<ListMultipartUploadsResult>")
	for id := range u.open {
		_, _ = fmt.Fprintf(w, "<Upload><Key>p/f</Key><UploadId>%s</UploadId><Initiated>%s</Initiated></Upload>", id, time.Now().UTC().Format(time.RFC3339))
	}
	_, _ = io.WriteString(w, "</ListMultipartUploadsResult>")
}

// wait waits until n parts were stored.
func (u *uploads) wait(t *testing.T, n int) {
	t.Helper()
	u.mu.Lock()
	defer u.mu.Unlock()
	late := false
	defer time.AfterFunc(patient, func() { u.mu.Lock(); late = true; u.mu.Unlock(); u.cond.Broadcast() }).Stop()
	for u.parts < n && !late {
		u.cond.Wait()
	}
	if u.parts < n {
		t.Fatalf("%d parts stored, want %d", u.parts, n)
	}
}

func (u *uploads) left() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	var ids []string
	for id := range u.open {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

func (u *uploads) completed(id string) (data []byte, parts int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.done[id], u.count[id]
}
