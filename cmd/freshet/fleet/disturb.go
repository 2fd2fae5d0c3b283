package fleet

import (
	"math/rand/v2"
	"time"
)

// Datagrams says how often, from 0 to 1, something happens to a datagram.
type Datagrams struct {
	Drop      float64
	Duplicate float64
	Reorder   float64 // it is held back, so that later ones overtake it
	Corrupt   float64 // one bit is flipped
}

// disturbance is a Datagrams with its source of chance.
type disturbance struct {
	Datagrams

	rand *rand.Rand
}

// overtaken is how long a reordered datagram is held back.
const overtaken = 150 * time.Millisecond

// Disturb treats datagrams as d says from now on; the zero Datagrams ends that.
// The seed makes the choices, though not the traffic, repeatable.
func (r *Relay) Disturb(d Datagrams, seed uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.bad = disturbance{Datagrams: d, rand: rand.New(rand.NewPCG(seed, 1))} //nolint:gosec // repeatable on purpose
}

type delivery struct {
	data []byte
	late time.Duration
}

// disturb returns what becomes of a datagram. A paused line loses it.
func (r *Relay) disturb(packet []byte) []delivery {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.paused != nil {
		return nil
	}
	chance := func(p float64) bool { return p > 0 && r.bad.rand.Float64() < p }
	if chance(r.bad.Drop) {
		return nil
	}
	d := delivery{data: append([]byte(nil), packet...)}
	out := []delivery{d}
	if chance(r.bad.Duplicate) {
		out = append(out, delivery{data: append([]byte(nil), packet...), late: overtaken / 2})
	}
	if chance(r.bad.Corrupt) && len(packet) > 0 {
		out[0].data[r.bad.rand.IntN(len(packet))] ^= 1 << r.bad.rand.IntN(8)
	}
	if chance(r.bad.Reorder) {
		out[0].late = overtaken
	}
	return out
}
