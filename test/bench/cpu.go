package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/freshet-io/freshet/cmd/freshet/fleet"
)

// ticksPerSecond is what Linux reports process times in.
const ticksPerSecond = 100

// pids are the processes that take part in a measurement besides this one.
type pids []int

// servers returns the servers of f.
func servers(f *fleet.Fleet) pids {
	var all pids
	for _, c := range f.Clusters {
		for _, p := range c.Processes() {
			all = append(all, p.PID())
		}
	}
	return all
}

// cpuTime returns the CPU time of this process and of others.
func cpuTime(others pids) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	total := time.Duration(u.Utime.Nano() + u.Stime.Nano())
	for _, pid := range others {
		total += processTime(pid)
	}
	return total
}

// processTime reads utime and stime, fields 14 and 15 of /proc/PID/stat.
func processTime(pid int) time.Duration {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0
	}
	_, rest, ok := strings.Cut(string(b), ") ")
	fields := strings.Fields(rest)
	if !ok || len(fields) < 13 {
		return 0
	}
	var ticks int64
	for _, f := range fields[11:13] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0
		}
		ticks += n
	}
	return time.Duration(ticks) * time.Second / ticksPerSecond
}

// preciseTime is the CPU time of others by the scheduler's own account, in
// nanoseconds where processTime has ticks. Threads that have ended are missing; a Go
// program rarely ends one.
func preciseTime(others pids) time.Duration {
	var total time.Duration
	for _, pid := range others {
		threads, err := filepath.Glob("/proc/" + strconv.Itoa(pid) + "/task/*/schedstat")
		if err != nil || len(threads) == 0 { // a kernel without it
			total += processTime(pid)
		}
		for _, name := range threads {
			b, err := os.ReadFile(name)
			if err != nil {
				continue
			}
			ran, _, _ := strings.Cut(string(b), " ")
			if n, err := strconv.ParseInt(ran, 10, 64); err == nil {
				total += time.Duration(n)
			}
		}
	}
	return total
}

// residentBytes returns the resident memory of a process.
func residentBytes(pid int) int64 {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/statm")
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(b))
	if len(fields) < 2 {
		return 0
	}
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	if err != nil {
		return 0
	}
	return pages * int64(os.Getpagesize())
}

func cpuModel() string {
	b, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "unknown CPU"
	}
	for line := range strings.Lines(string(b)) {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == "model name" {
			return strings.TrimSpace(v)
		}
	}
	return "unknown CPU"
}

func loadAverage() string {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	return strings.Join(strings.Fields(string(b))[:3], " ")
}
