package config

import (
	"fmt"
	"path/filepath"
	"strings"
)

// maxTierDirs bounds the directories of a node.
const maxTierDirs = 63

// checkCache checks the tiers and completes them.
func (f *File) checkCache(p *problems) {
	if len(f.Cache.Tiers) == 0 {
		f.Cache.Tiers = []Tier{{Kind: "memory", Size: DefaultTierSize}}
	}
	setDefault(&f.Cache.Eviction, "s3-fifo")
	checkEviction(p, "cache.eviction", f.Cache.Eviction)
	dirs := make(map[string]string) // path to key
	last := -1
	for i := range f.Cache.Tiers {
		t, key := &f.Cache.Tiers[i], fmt.Sprintf("cache.tiers[%d]", i)
		speed := speedOf(t.Kind)
		switch {
		case speed < 0:
			p.add(key+".kind", "%q is not \"memory\", \"ssd\", \"disk\" or \"hdd\"", t.Kind)
		case speed <= last:
			p.add(key+".kind", "%q can't follow %q: one tier of memory, then one ssd or disk, then one hdd", t.Kind, f.Cache.Tiers[i-1].Kind)
		}
		last = max(last, speed)
		setDefault(&t.Eviction, f.Cache.Eviction)
		checkEviction(p, key+".eviction", t.Eviction)
		checkWatermarks(p, key, t, i == len(f.Cache.Tiers)-1)
		checkTierDirs(p, key, t, dirs)
	}
	if len(dirs) > maxTierDirs {
		p.add("cache.tiers", "%d directories; a node has at most %d", len(dirs), maxTierDirs)
	}
	f.checkFetches(p)
}

// checkFetches checks how blocks are fetched, and completes it.
func (f *File) checkFetches(p *problems) {
	c := &f.Cache
	yes := true
	if c.Partial == nil {
		c.Partial = &yes
	}
	if c.Passive == nil {
		c.Passive = &yes
	}
	setDefault(&c.Fetch.Range, DefaultFetchRange)
	p.size("cache.fetch.range", c.Fetch.Range, 256<<10, 1<<30)
	setDefault(&c.Uploads.Memory, DefaultUploadMemory)
	p.size("cache.uploads.memory", c.Uploads.Memory, 1<<20, 1<<40)
	if c.Background.Rate != "" {
		p.size("cache.background.rate", c.Background.Rate, 256<<10, 1<<40)
	}
	for _, n := range []struct {
		key       string
		at        *int
		def, most int
	}{
		{"cache.fetch.blocks", &c.Fetch.Blocks, DefaultFetchBlocks, 4096},
		{"cache.fetch.parallel", &c.Fetch.Parallel, DefaultFetchParallel, 64},
		{"cache.fetch.requests", &c.Fetch.Requests, DefaultFetchRequests, 4096},
		{"cache.background.blocks", &c.Background.Blocks, DefaultBackgroundBlocks, 1024},
	} {
		usual(p, n.key, n.at, n.def)
		if *n.at < 1 || *n.at > n.most {
			p.add(n.key, "%d is out of range; allowed is 1 to %d", *n.at, n.most)
		}
	}
}

// speedOf orders the kinds of tiers, the fastest first; -1 for none.
func speedOf(kind string) int {
	switch kind {
	case "memory":
		return 0
	case "ssd", "disk":
		return 1
	case "hdd":
		return 2
	}
	return -1
}

func checkEviction(p *problems, key, policy string) {
	switch policy {
	case "s3-fifo", "sieve", "lru", "lfu":
	default:
		p.add(key, "%q is not known; use \"s3-fifo\", \"sieve\", \"lru\" or \"lfu\"", policy)
	}
}

func checkWatermarks(p *problems, key string, t *Tier, last bool) {
	high, low := t.HighWatermark, t.LowWatermark
	switch {
	case high == 0 && low == 0:
	case t.Kind == "memory" && last:
		p.add(key+".high_watermark", "has no effect: memory that no other tier follows gives space at once")
	case low < 1 || high > 100 || low > high:
		p.add(key+".high_watermark", "%d and low_watermark %d: give both, in percent, the low one not above the high one", high, low)
	}
}

// checkTierDirs checks where the tier is; seen are the directories of all tiers.
func checkTierDirs(p *problems, key string, t *Tier, seen map[string]string) {
	if t.Kind == "memory" {
		if t.Path != "" || len(t.Dirs) > 0 {
			p.add(key+".path", "a memory tier has no path")
		}
		checkTierSize(p, key+".size", t.Size)
		return
	}
	if len(t.Dirs) > 0 && (t.Path != "" || t.Size != "") {
		p.add(key+".dirs", "stands instead of path and size; give one or the other")
	}
	for i, d := range t.Directories() {
		at := key
		if len(t.Dirs) > 0 {
			at = fmt.Sprintf("%s.dirs[%d]", key, i)
		}
		checkTierSize(p, at+".size", d.Size)
		if !filepath.IsAbs(d.Path) {
			p.add(at+".path", "%q is not an absolute path", d.Path)
			continue
		}
		path := filepath.Clean(d.Path)
		for other, where := range seen {
			if path == other || strings.HasPrefix(path, other+"/") || strings.HasPrefix(other, path+"/") {
				p.add(at+".path", "%q is %q of %s, or one is in the other: each needs a directory of its own", d.Path, other, where)
			}
		}
		seen[path] = at
	}
}

func checkTierSize(p *problems, key string, size Size) {
	if size == "" {
		p.add(key, "is required")
		return
	}
	p.size(key, size, 1<<20, 1<<50)
}
