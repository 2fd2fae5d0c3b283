package child

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// cacheName is the folder in the user's cache. It may be deleted at any time when no
// test runs.
const cacheName = "freshet-test"

// Cached returns the directory NAME-KEY of the cache. If it does not exist, build makes
// it, in a temporary directory that then gets the name: an interrupted build leaves
// nothing half done. Processes that want the same one wait for each other.
func Cached(ctx context.Context, name, key string, build func(ctx context.Context, dir string) error) (string, error) {
	user := os.Getenv("XDG_CACHE_HOME") // not looked at by the function below on every system
	if user == "" {
		var err error
		if user, err = os.UserCacheDir(); err != nil {
			return "", fmt.Errorf("cache directory: %w", err)
		}
	}
	cache := filepath.Join(user, cacheName)
	dir := filepath.Join(cache, name+"-"+key)
	if exists(dir) {
		return dir, nil
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", fmt.Errorf("cache directory: %w", err)
	}
	unlock, err := lock(filepath.Join(cache, name+".lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	if exists(dir) {
		return dir, nil
	}
	tmp := filepath.Join(cache, name+".partial") // one at a time, under the lock
	if err := errors.Join(os.RemoveAll(tmp), os.Mkdir(tmp, 0o755)); err != nil {
		return "", fmt.Errorf("cache directory: %w", err)
	}
	if err := build(ctx, tmp); err != nil {
		return "", errors.Join(err, os.RemoveAll(tmp))
	}
	if err := os.Rename(tmp, dir); err != nil {
		return "", fmt.Errorf("cache directory: %w", err)
	}
	return dir, nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// lock waits until it holds the file's lock, which ends with the process at the latest.
func lock(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock of %s: %w", path, err), f.Close())
	}
	return func() { _ = f.Close() }, nil
}

// Sources finds the directory test/backends in the module that the working directory
// is in.
func Sources(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("go env GOMOD: %w", err)
	}
	dir := filepath.Join(filepath.Dir(strings.TrimSpace(string(out))), "test", "backends")
	if !exists(filepath.Join(dir, "go.mod")) {
		return "", errors.New("test/backends not found: run inside the freshet module")
	}
	return dir, nil
}

// HashFiles is a short digest of the contents of files, for a key of Cached.
func HashFiles(paths ...string) (string, error) {
	h := sha256.New()
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		_, _ = fmt.Fprintf(h, "%s %d\n", filepath.Base(path), len(b))
		_, _ = h.Write(b)
	}
	return short(h.Sum(nil)), nil
}

func short(sum []byte) string { return hex.EncodeToString(sum)[:16] }

// Command builds cmd/NAME of test/backends and returns the program's path, unless the
// environment variable env names one. It builds once for each state of the sources,
// which at the first time takes minutes of CPU.
func Command(ctx context.Context, name, env string) (string, error) {
	if bin := os.Getenv(env); bin != "" {
		if _, err := os.Stat(bin); err != nil {
			return "", fmt.Errorf("%s: %w", env, err)
		}
		return bin, nil
	}
	src, err := Sources(ctx)
	if err != nil {
		return "", fmt.Errorf("%w, or set %s", err, env)
	}
	key, err := hashGo(src)
	if err != nil {
		return "", fmt.Errorf("sources of %s: %w", name, err)
	}
	dir, err := Cached(ctx, name, key, func(ctx context.Context, dir string) error {
		cmd := exec.CommandContext(ctx, "go", "build", "-C", src, "-mod=readonly", "-buildvcs=false", "-trimpath",
			"-ldflags=-s -w", "-o", filepath.Join(dir, name), "./cmd/"+name)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build of %s in %s: %w: %s", name, src, err, out)
		}
		return nil
	})
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, name), nil
}

// hashGo covers what a program depends on: sources, module files and the Go version.
func hashGo(dir string) (string, error) {
	h := sha256.New()
	_, _ = io.WriteString(h, runtime.Version()+runtime.GOOS+runtime.GOARCH)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		isSource := (strings.HasSuffix(name, ".go") && !strings.HasSuffix(name, "_test.go")) ||
			name == "go.mod" || name == "go.sum"
		if d.IsDir() || !isSource {
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		_, _ = fmt.Fprintf(h, "\n%s %d\n", filepath.ToSlash(rel), len(b))
		_, _ = h.Write(b)
		return err
	})
	return short(h.Sum(nil)), err
}

// Below joins names to a directory.
func Below(dir string, names ...string) []string {
	paths := make([]string, len(names))
	for i, name := range names {
		paths[i] = filepath.Join(dir, name)
	}
	return paths
}
