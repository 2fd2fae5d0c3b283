package sqstest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/freshet-io/freshet/test/child"
)

// Recipe says what moto needs on this machine.
var Recipe = child.Recipe{Backend: "sqs", Tools: []child.Tool{
	{Name: "python3", Debian: "python3 python3-venv"},
}}

// Provision returns the directory with moto, which it makes in the user's cache if
// necessary. The error is a *child.UnavailableError if this machine cannot have it.
func Provision(ctx context.Context) (string, error) {
	if dir, err := Recipe.Check(); dir != "" || err != nil {
		return dir, err
	}
	// Debian has what makes an environment in a package of its own.
	if err := exec.CommandContext(ctx, "python3", "-c", "import venv, ensurepip").Run(); err != nil {
		return "", &child.UnavailableError{
			Backend: Recipe.Backend, Reason: "python3 has no venv (on Debian: apt-get install python3-venv)", Err: err,
		}
	}
	dir, err := provision(ctx)
	if err != nil {
		return "", &child.UnavailableError{Backend: Recipe.Backend, Reason: "making it failed, which make provision shows", Err: err}
	}
	return dir, nil
}

func provision(ctx context.Context) (string, error) {
	src, err := child.Sources(ctx)
	if err != nil {
		return "", err
	}
	src = filepath.Join(src, "moto")
	key, err := child.HashFiles(child.Below(src, "requirements.txt", "server.py")...)
	if err != nil {
		return "", err
	}
	// An environment belongs to the interpreter that made it.
	version, err := exec.CommandContext(ctx, "python3", "-c", "import sys; print('py%d%d' % sys.version_info[:2])").Output()
	if err != nil {
		return "", fmt.Errorf("python3: %w", err)
	}
	return child.Cached(ctx, "moto", string(version[:len(version)-1])+"-"+key, func(ctx context.Context, dir string) error {
		// pip installs only files whose digests are in the lock.
		venv := exec.CommandContext(ctx, "python3", "-m", "venv", filepath.Join(dir, "venv"))
		pip := exec.CommandContext(ctx, python(dir), "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
			"--require-hashes", "--requirement", filepath.Join(src, "requirements.txt"))
		if err := errors.Join(child.Run(venv), child.Run(pip)); err != nil {
			return err
		}
		b, err := os.ReadFile(filepath.Join(src, "server.py"))
		return errors.Join(err, os.WriteFile(filepath.Join(dir, "server.py"), b, 0o644))
	})
}

// python is the environment's interpreter. The scripts beside it name the directory that
// the environment was made in, which has another name now.
func python(dir string) string { return filepath.Join(dir, "venv", "bin", "python") }
