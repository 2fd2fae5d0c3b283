package proxy

import (
	"maps"
	"sync"
)

// recordLimit is how many requests are remembered one by one.
const recordLimit = 4096

// Counts says what arrived since the last reset. A request is counted before the
// first byte of its answer, whatever became of it.
type Counts struct {
	Total    int            `json:"total"`
	ByOp     map[string]int `json:"byOp"`
	BytesIn  map[string]int `json:"bytesIn"`  // request body bytes by operation
	BytesOut map[string]int `json:"bytesOut"` // response body bytes by operation
}

// Record is one request.
type Record struct {
	Seq    int    `json:"seq"`
	Op     string `json:"op"`
	Bucket string `json:"bucket,omitempty"`
	Key    string `json:"key,omitempty"`
	Range  string `json:"range,omitempty"`
	Fault  string `json:"fault,omitempty"`
	// Status is the engine's or the fault's answer; 0 means none yet, or none at all.
	Status int `json:"status"`
	// Done tells that the server has finished with it.
	Done bool `json:"done"`
}

// recorder counts requests. Safe for concurrent use.
type recorder struct {
	mu      sync.Mutex
	counts  Counts
	records []*Record
}

func newRecorder() *recorder {
	r := &recorder{}
	r.reset()
	return r
}

func (r *recorder) reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.counts = Counts{ByOp: map[string]int{}, BytesIn: map[string]int{}, BytesOut: map[string]int{}}
	r.records = nil
}

func (r *recorder) begin(c call, byteRange string) *Record {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.counts.Total++
	r.counts.ByOp[c.op]++
	rec := &Record{Seq: r.counts.Total, Op: c.op, Bucket: c.bucket, Key: c.key, Range: byteRange}
	if len(r.records) == recordLimit {
		r.records = r.records[1:]
	}
	r.records = append(r.records, rec)
	return rec
}

func (r *recorder) setFault(rec *Record, action string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	rec.Fault = action
}

func (r *recorder) setStatus(rec *Record, status int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	rec.Status = status
}

func (r *recorder) end(rec *Record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	rec.Done = true
}

func (r *recorder) addIn(op string, n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.counts.BytesIn[op] += n
}

func (r *recorder) addOut(op string, n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.counts.BytesOut[op] += n
}

func (r *recorder) snapshot() Counts {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.counts
	c.ByOp, c.BytesIn, c.BytesOut = maps.Clone(c.ByOp), maps.Clone(c.BytesIn), maps.Clone(c.BytesOut)
	return c
}

func (r *recorder) list() []Record {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]Record, 0, len(r.records))
	for _, rec := range r.records {
		out = append(out, *rec)
	}
	return out
}
