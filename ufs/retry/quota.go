package retry

import "sync"

// earned is what one answer adds to the quota.
const earned = 0.5

// quota is a bucket of repetitions. Safe for concurrent use.
type quota struct {
	mu        sync.Mutex
	left, max float64
}

func newQuota(n int) *quota { return &quota{left: float64(n), max: float64(n)} }

// take takes one repetition out and reports whether there was one.
func (q *quota) take() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.left < 1 {
		return false
	}
	q.left--
	return true
}

// earn is told of each answer.
func (q *quota) earn() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.left = min(q.max, q.left+earned)
}
