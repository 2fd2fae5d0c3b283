package tier_test

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/cachenode/tier"
)

// TestPolicies holds each policy to what the tier relies on, whatever is asked of
// it: a victim is a block that it has, that is not busy; there is one unless all
// blocks are busy; and it stays until it is removed.
func TestPolicies(t *testing.T) {
	t.Parallel()
	for _, name := range tier.Policies() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rapid.Check(t, func(rt *rapid.T) {
				p, err := tier.NewPolicy(name, 10_000)
				if err != nil {
					rt.Fatal(err)
				}
				m := &policyMachine{p: p, have: map[freshet.BlockID]bool{}}
				rt.Repeat(map[string]func(*rapid.T){
					"add": m.add, "touch": m.touch, "remove": m.remove, "busy": m.busy, "evict": m.evict,
				})
			})
		})
	}
}

// policyMachine knows which blocks a policy has, and which of them are busy.
type policyMachine struct {
	p    tier.Policy
	have map[freshet.BlockID]bool
}

func (m *policyMachine) draw(rt *rapid.T) (id freshet.BlockID, known bool) {
	id = block(rapid.IntRange(1, 20).Draw(rt, "file"), 0)
	_, known = m.have[id]
	return id, known
}

func (m *policyMachine) add(rt *rapid.T) {
	if id, known := m.draw(rt); !known {
		m.p.Add(id, rapid.Int64Range(1, 3000).Draw(rt, "size"))
		m.have[id] = false
	}
}

// touch may be of a block that has just gone.
func (m *policyMachine) touch(rt *rapid.T) {
	id, _ := m.draw(rt)
	m.p.Touch(id)
}

func (m *policyMachine) remove(rt *rapid.T) {
	id, _ := m.draw(rt)
	m.p.Remove(id)
	delete(m.have, id)
}

func (m *policyMachine) busy(rt *rapid.T) {
	if id, known := m.draw(rt); known {
		m.have[id] = !m.have[id]
	}
}

func (m *policyMachine) evict(rt *rapid.T) {
	idle := 0
	for _, busy := range m.have {
		if !busy {
			idle++
		}
	}
	id, ok := m.p.Victim(func(id freshet.BlockID) bool {
		busy, known := m.have[id]
		if !known {
			rt.Fatalf("the policy asks for %v, which it does not have", id)
		}
		return busy
	})
	if ok != (idle > 0) {
		rt.Fatalf("a victim was found: %t; %d blocks are idle", ok, idle)
	}
	if !ok {
		return
	}
	if busy, known := m.have[id]; !known || busy {
		rt.Fatalf("victim %v: known %t, busy %t", id, known, busy)
	}
	if rapid.Bool().Draw(rt, "go") {
		m.p.Remove(id)
		delete(m.have, id)
	}
}

// TestPoliciesChoose plays one story for each policy that tells it from the others.
func TestPoliciesChoose(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		policy string
		reads  []int // after blocks 1, 2 and 3 have come, in this order
		want   int
	}{
		{"lru", nil, 1},
		{"lru", []int{1, 1, 2}, 3},
		{"lru", []int{3, 3, 2, 1}, 3},
		{"sieve", nil, 1},
		{"sieve", []int{1}, 2},
		{"sieve", []int{1, 2, 3}, 1}, // all were read: the hand comes round to the oldest
		{"lfu", []int{3, 3, 2, 1}, 2},
		{"lfu", []int{1, 2, 3, 1}, 2}, // of equals, the one read longest ago
		{"s3-fifo", nil, 1},
		{"s3-fifo", []int{1, 2}, 3},
	} {
		p := must2(tier.NewPolicy(c.policy, 300))(t)
		for i := range 3 {
			p.Add(block(i+1, 0), 100)
		}
		for _, i := range c.reads {
			p.Touch(block(i, 0))
		}
		id, ok := p.Victim(func(freshet.BlockID) bool { return false })
		if !ok || id != block(c.want, 0) {
			t.Errorf("%s after reads of %v: victim %v, %t; want %d", c.policy, c.reads, id, ok, c.want)
		}
	}
}

// TestLFUForgets shows the aging: what was read a thousand times goes some time
// after nobody reads it any more.
func TestLFUForgets(t *testing.T) {
	t.Parallel()
	p := must2(tier.NewPolicy("lfu", 1000))(t)
	p.Add(block(1, 0), 100)
	for range 1000 {
		p.Touch(block(1, 0))
	}
	for i := range 5000 {
		p.Add(block(2, i), 100)
		id, ok := p.Victim(func(id freshet.BlockID) bool { return id == block(2, i) })
		if !ok || id == block(1, 0) {
			return
		}
		p.Remove(id)
		p.Touch(block(2, i))
	}
	t.Error("a block that nobody reads outlived 5,000 that were read")
}
