package local

import "time"

// DecodeAnswer and DecodeRequest read what came over the socket.
func DecodeAnswer(b []byte) (isLoan bool, chunks int, length, size int64, err error) {
	a, err := decodeAnswer(b)
	return a.isLoan, len(a.layout.Sums), a.layout.Length, a.layout.ChunkSize, err
}

// DecodeRequest is as above.
func DecodeRequest(b []byte) error {
	_, err := decodeRequest(b)
	return err
}

// AnswersCanBeMissed delivers an answer to somebody who is slow to take it, and reports
// whether one who gives up meanwhile would find neither the answer nor that none came.
func AnswersCanBeMissed() bool {
	ch := make(chan answer)
	c := &conn{waiting: map[uint64]chan answer{1: ch}}
	go c.deliver(answer{id: 1, fd: -1})
	defer func() { <-ch }()
	for busy := 0; busy < 50; {
		if !c.mu.TryLock() {
			busy++
			<-time.After(time.Millisecond)
			continue
		}
		_, waits := c.waiting[1]
		c.mu.Unlock()
		if !waits {
			return true
		}
		busy = 0
	}
	return false
}

// Wanted returns how many loans are remembered that nodes want back.
func Wanted(p *Pool) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, h := range p.hosts {
		h.mu.Lock()
		if c := h.conn; c != nil {
			c.mu.Lock()
			n += len(c.wanted)
			c.mu.Unlock()
		}
		h.mu.Unlock()
	}
	return n
}

// SetSilence sets how long a node may not even greet while it takes a file.
func SetSilence(p *Pool, d time.Duration) { p.silent = d }
