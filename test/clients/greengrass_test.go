//go:build linux

package clients_test

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/leat-io/leat/internal/testenv"
)

// recipe is what the test looks at of deploy/greengrass/recipe.yaml.
type recipe struct {
	Format                 string `yaml:"RecipeFormatVersion"`
	Name                   string `yaml:"ComponentName"`
	Version                string `yaml:"ComponentVersion"`
	ComponentConfiguration struct {
		Default map[string]any `yaml:"DefaultConfiguration"`
	} `yaml:"ComponentConfiguration"`
	Lifecycle struct {
		Setenv map[string]string `yaml:"Setenv"`
		Run    struct {
			Script string `yaml:"Script"`
		} `yaml:"Run"`
	} `yaml:"Lifecycle"`
	Manifests []struct {
		Platform  struct{ OS, Architecture string } `yaml:"Platform"`
		Artifacts []struct {
			URI        string            `yaml:"URI"`
			Permission map[string]string `yaml:"Permission"`
		} `yaml:"Artifacts"`
	} `yaml:"Manifests"`
}

func readRecipe(t *testing.T) recipe {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(testenv.ModuleRoot(t), "deploy", "greengrass", "recipe.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var r recipe
	if err := yaml.Unmarshal(b, &r); err != nil {
		t.Fatal(err)
	}
	return r
}

// TestRecipe checks what other components and deployments rely on.
func TestRecipe(t *testing.T) {
	r := readRecipe(t)
	if r.Format != "2020-01-25" || r.Name != "aws.greengrass.StreamManager" {
		t.Errorf("%s, format %s", r.Name, r.Format)
	}
	// Satisfies ^2.0.0 and >=2.0.10 <3.0.0, and wins over the original's 2.3.x.
	if m := regexp.MustCompile(`^2\.([0-9]+)\.[0-9]+$`).FindStringSubmatch(r.Version); m == nil || len(m[1]) < 2 {
		t.Errorf("version %s", r.Version)
	}
	for _, key := range []string{
		"STREAM_MANAGER_STORE_ROOT_DIR", "STREAM_MANAGER_SERVER_PORT", "STREAM_MANAGER_AUTHENTICATE_CLIENT",
		"STREAM_MANAGER_EXPORTER_MAX_BANDWIDTH", "STREAM_MANAGER_EXPORTER_THREAD_POOL_SIZE", "STREAM_MANAGER_THREAD_POOL_SIZE",
		"STREAM_MANAGER_EXPORTER_S3_DESTINATION_MULTIPART_UPLOAD_MIN_PART_SIZE_BYTES", "STREAM_MANAGER_READ_ONLY_DIRS", "LOG_LEVEL",
		"JVM_ARGS", "LEAT_CONFIG",
	} {
		if _, text := r.ComponentConfiguration.Default[key].(string); !text {
			t.Errorf("the default of %s is no text", key)
		}
		if want := "{configuration:/" + key + "}"; r.Lifecycle.Setenv[key] != want && key != "JVM_ARGS" {
			t.Errorf("%s is handed over as %q, want %q", key, r.Lifecycle.Setenv[key], want)
		}
	}
	var platforms []string
	for _, m := range r.Manifests {
		platforms = append(platforms, m.Platform.OS+"/"+m.Platform.Architecture)
		if len(m.Artifacts) != 1 || !strings.HasSuffix(m.Artifacts[0].URI, "/leat") || m.Artifacts[0].Permission["Execute"] != "OWNER" {
			t.Errorf("artifacts %+v", m.Artifacts)
		}
	}
	if got := strings.Join(platforms, " "); got != "linux/amd64 linux/aarch64 linux/arm" {
		t.Errorf("platforms %s", got)
	}
}

// TestRecipeRuns starts leat as the nucleus would: variables of the recipe replaced, its environment set, the script run
// by sh in the component's work directory. A component with the Python SDK uses it.
func TestRecipeRuns(t *testing.T) {
	for what, c := range map[string]struct {
		config map[string]string // over the defaults
		store  string            // where the data must be, below the work directory
	}{
		"with the defaults": {map[string]string{}, "."},
		"with settings of a deployment": {map[string]string{
			"LOG_LEVEL": "TRACE", "JVM_ARGS": "-Xmx64m", "STREAM_MANAGER_EXPORTER_MAX_BANDWIDTH": "1000",
		}, "streams"},
	} {
		t.Run(what, func(t *testing.T) {
			r := readRecipe(t)
			work := t.TempDir()
			n := newNodeIn(t, filepath.Join(work, c.store), "")
			_, port, err := net.SplitHostPort(n.addr)
			mustf(t, err == nil, "%v", err)
			config := map[string]string{}
			for key, value := range r.ComponentConfiguration.Default {
				config[key] = value.(string)
			}
			for key, value := range c.config {
				config[key] = value
			}
			config["STREAM_MANAGER_SERVER_PORT"] = port
			if c.store != "." {
				config["STREAM_MANAGER_STORE_ROOT_DIR"] = n.dir
				mustf(t, os.Mkdir(n.dir, 0o700) == nil, "the store's directory")
			}
			replace := recipeVariables(t, config, work)
			n.env = cleanEnv()
			for key, value := range r.Lifecycle.Setenv {
				n.env = append(n.env, key+"="+replace(value))
			}
			cmd := exec.Command(testenv.Need(t, "sh"), "-c", replace(r.Lifecycle.Run.Script))
			cmd.Dir = work
			n.run(cmd)
			testenv.Wait(t, patience, func() bool {
				return strings.Contains(n.out.String(), "Stream Manager reporting the state: RUNNING")
			}, "the line that says so")
			client := newClient(t, n, sdks()[0], "AWS_CONTAINER_AUTHORIZATION_TOKEN=a-token-of-the-nucleus")
			client.create("s", nil)
			client.append("s", []byte("x"))
			n.stop()
		})
	}
}

// recipeVariables replaces the variables of a recipe as the nucleus does. One that stays is an error.
func recipeVariables(t *testing.T, config map[string]string, work string) func(string) string {
	t.Helper()
	variable := regexp.MustCompile(`\{([a-z]+):([^{}:]*)\}`)
	bin := filepath.Dir(testenv.Binary(t, "./cmd/leat"))
	return func(s string) string {
		return variable.ReplaceAllStringFunc(s, func(v string) string {
			m := variable.FindStringSubmatch(v)
			value, known := config[strings.TrimPrefix(m[2], "/")]
			switch {
			case m[1] == "configuration" && known:
				return value
			case m[1] == "artifacts" && m[2] == "path":
				return bin
			case m[1] == "work" && m[2] == "path":
				return work
			}
			t.Errorf("the nucleus does not know %s", v)
			return ""
		})
	}
}
