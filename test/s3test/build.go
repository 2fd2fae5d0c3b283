package s3test

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

// BinaryEnv names the server's program; without it the program is built.
const BinaryEnv = "FRESHET_TEST_S3SERVER"

// Binary returns the path of the server's program: from the environment, or from
// the user's cache, where it is built first if the sources have changed. The first
// build takes minutes of CPU. Processes that build at once wait for each other.
func Binary(ctx context.Context) (string, error) {
	if bin := os.Getenv(BinaryEnv); bin != "" {
		if _, err := os.Stat(bin); err != nil {
			return "", fmt.Errorf("s3test: %s: %w", BinaryEnv, err)
		}
		return bin, nil
	}
	src, err := sourceDir(ctx)
	if err != nil {
		return "", err
	}
	sum, err := hashSources(src)
	if err != nil {
		return "", fmt.Errorf("s3test: sources of the server: %w", err)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("s3test: cache directory (or set %s): %w", BinaryEnv, err)
	}
	dir := filepath.Join(cache, "freshet-test")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("s3test: cache directory: %w", err)
	}
	bin := filepath.Join(dir, "s3server-"+sum)
	if _, err := os.Stat(bin); err == nil {
		return bin, nil
	}
	return bin, buildLocked(ctx, src, bin)
}

// buildLocked builds unless another process has done so while it held the lock.
func buildLocked(ctx context.Context, src, bin string) error {
	lock, err := os.OpenFile(filepath.Join(filepath.Dir(bin), "s3server.lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return fmt.Errorf("s3test: build lock: %w", err)
	}
	defer lock.Close() // gives the lock back
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("s3test: build lock: %w", err)
	}
	if _, err := os.Stat(bin); err == nil {
		return nil
	}
	tmp := bin + ".tmp"
	cmd := exec.CommandContext(ctx, "go", "build", "-C", src, "-mod=readonly", "-buildvcs=false", "-trimpath",
		"-ldflags=-s -w", "-o", tmp, "./cmd/s3server")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("s3test: build of the S3 server in %s: %w: %s", src, err, out)
	}
	if err := os.Rename(tmp, bin); err != nil {
		return fmt.Errorf("s3test: install of the S3 server: %w", err)
	}
	return nil
}

// sourceDir finds test/backends in the module that the working directory is in.
func sourceDir(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("s3test: go env GOMOD: %w", err)
	}
	dir := filepath.Join(filepath.Dir(strings.TrimSpace(string(out))), "test", "backends")
	if _, err := os.Stat(filepath.Join(dir, "go.mod")); err != nil {
		return "", fmt.Errorf("s3test: run inside the freshet module or set %s: %w", BinaryEnv, err)
	}
	return dir, nil
}

// hashSources covers what the program depends on: sources, module files and the
// Go version.
func hashSources(dir string) (string, error) {
	h := sha256.New()
	_, _ = io.WriteString(h, runtime.Version()+runtime.GOOS+runtime.GOARCH)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		name := d.Name()
		isSource := (strings.HasSuffix(name, ".go") && !strings.HasSuffix(name, "_test.go")) ||
			name == "go.mod" || name == "go.sum"
		if err != nil || d.IsDir() || !isSource {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		_, _ = fmt.Fprintf(h, "\n%s\n", filepath.ToSlash(rel))
		_, err = io.Copy(h, f)
		return errors.Join(err, f.Close())
	})
	return hex.EncodeToString(h.Sum(nil))[:16], err
}
