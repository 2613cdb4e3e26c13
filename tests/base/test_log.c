/* What reaches stderr, read back through a pipe in its place. */
#include "src/base/clock.h"
#include "src/base/log.h"
#include <criterion/criterion.h>
#include <fcntl.h>
#include <jansson.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

static char output[1 << 20];
static int saved_stderr;
static FILE *capture;

static void begin_capture(void)
{
    capture = tmpfile();
    cr_assert_not_null(capture);
    saved_stderr = dup(STDERR_FILENO);
    cr_assert_geq(dup2(fileno(capture), STDERR_FILENO), 0);
    setenv("SOURCE_DATE_EPOCH", "0", 1);
    unsetenv("PRIMA_LOG");
}

static const char *end_capture(void)
{
    dup2(saved_stderr, STDERR_FILENO);
    close(saved_stderr);
    rewind(capture);
    output[fread(output, 1, sizeof output - 1, capture)] = 0;
    fclose(capture);
    return output;
}

Test(log, text_lines_and_levels)
{
    begin_capture();
    log_setup(&(log_options){.level = LOG_INFO});
    log_error("disk %s is full", "sda");
    log_warn("w");
    log_info("i");
    log_debug("d");
    cr_assert_str_eq(end_capture(), "1970-01-01T00:00:00Z error disk sda is full\n"
                                    "1970-01-01T00:00:00Z warn  w\n"
                                    "1970-01-01T00:00:00Z info  i\n");
}

Test(log, environment_sets_the_level)
{
    begin_capture();
    setenv("PRIMA_LOG", "debug", 1);
    log_setup(&(log_options){.level = LOG_ERROR});
    log_debug("d");
    setenv("PRIMA_LOG", "loud", 1);
    log_setup(&(log_options){.level = LOG_WARN});
    log_info("i");
    cr_assert_str_eq(end_capture(),
                     "1970-01-01T00:00:00Z debug d\n1970-01-01T00:00:00Z warn  PRIMA_LOG=loud is not a "
                     "level (error, warn, info, debug): ignored\n");
}

Test(log, hostile_text_stays_on_its_line)
{
    begin_capture();
    log_setup(&(log_options){.level = LOG_INFO});
    log_info("a\nb\033[2Jc\x7f \xff \xc3\xa9 \"q\" \\n");
    cr_assert_str_eq(end_capture(),
                     "1970-01-01T00:00:00Z info  a\\nb\\x1b[2Jc\\x7f \\xff \xc3\xa9 \"q\" \\n\n");
}

Test(log, json_lines_are_json)
{
    json_t *v;

    begin_capture();
    log_setup(&(log_options){.level = LOG_INFO, .json = true, .color = true});
    log_warn("a \"b\" \\ \n \033 \x7f \xff \xed\xa0\x80 \xc3\xa9 \xf0\x9f\x98\x80");
    end_capture();
    cr_assert_eq(strchr(output, '\n'), output + strlen(output) - 1);
    v = json_loads(output, JSON_REJECT_DUPLICATES, NULL);
    cr_assert_not_null(v, "%s", output);
    cr_assert_str_eq(json_string_value(json_object_get(v, "ts")), "1970-01-01T00:00:00Z");
    cr_assert_str_eq(json_string_value(json_object_get(v, "level")), "warn");
    cr_assert_str_eq(json_string_value(json_object_get(v, "msg")),
                     "a \"b\" \\ \n \033 \x7f \xef\xbf\xbd \xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd \xc3\xa9 "
                     "\xf0\x9f\x98\x80");
    cr_assert_eq(json_object_size(v), 3);
    json_decref(v);
}

Test(log, color)
{
    begin_capture();
    log_setup(&(log_options){.level = LOG_INFO, .color = true});
    log_error("e");
    log_info("i");
    cr_assert_str_eq(end_capture(),
                     "1970-01-01T00:00:00Z \033[31merror\033[0m e\n1970-01-01T00:00:00Z info  i\n");
}

Test(log, no_progress_line_without_a_terminal)
{
    begin_capture();
    log_setup(&(log_options){.level = LOG_INFO, .progress = true});
    log_progress("%d of %d", 1, 2);
    log_info("i");
    log_progress("%s", "");
    cr_assert_str_eq(end_capture(), "1970-01-01T00:00:00Z info  i\n");
}

/* stderr on a terminal: what was drawn on it until now. The kernel hands bytes over on a thread of its own,
 * so a mark is written behind them and waited for. */
static const char *on_terminal(int master)
{
    struct pollfd p = {.fd = master, .events = POLLIN};
    size_t n = 0;
    ssize_t got = 0;

    cr_assert_eq(write(STDERR_FILENO, "\1", 1), 1);
    while (!n || output[n - 1] != '\1') {
        cr_assert_eq(poll(&p, 1, 10000), 1, "the mark does not come");
        got = read(master, output + n, sizeof output - 1 - n);
        cr_assert_gt(got, 0);
        n += (size_t)got;
    }
    output[n - 1] = 0;
    return output;
}

/* Draws two lines one after the other until that took less than a tenth of a second: any pause can come
 * between. */
static void draw_twice_at_once(int master)
{
    uint64_t start;

    for (int i = 0; i < 100; i++) {
        start = clock_ns();
        log_progress("%d of %d", 1, 9);
        cr_expect_str_eq(on_terminal(master), "\r\033[K1 of 9");
        log_progress("%d of %d", 2, 9);
        if (clock_ns() - start < 100000000) return;
        log_progress("%s", "");
        on_terminal(master);
    }
    cr_assert_fail("this machine pauses all the time");
}

Test(log, progress_line_gives_way_to_events)
{
    int master = posix_openpt(O_RDWR | O_NOCTTY), slave;

    if (master < 0 || grantpt(master) || unlockpt(master)) cr_skip_test("no pseudo-terminals here");
    slave = open(ptsname(master), O_RDWR | O_NOCTTY);
    cr_assert_geq(slave, 0);
    begin_capture();
    cr_assert_geq(dup2(slave, STDERR_FILENO), 0);
    log_setup(&(log_options){.level = LOG_INFO, .progress = true});

    draw_twice_at_once(master);
    cr_expect_str_eq(on_terminal(master), "", "drawn again within a tenth of a second");
    log_info("i");
    cr_expect_str_eq(on_terminal(master), "\r\033[K1970-01-01T00:00:00Z info  i\r\n2 of 9");
    usleep(110000);
    log_progress("%d\nof\033[2J %d", 3, 9);
    cr_expect_str_eq(on_terminal(master), "\r\033[K3\\nof\\x1b[2J 9");
    log_progress("%s", "");
    cr_expect_str_eq(on_terminal(master), "\r\033[K", "the end does not wait");
    log_progress("%s", "");
    log_info("i");
    cr_expect_str_eq(on_terminal(master), "1970-01-01T00:00:00Z info  i\r\n");
    ioctl(slave, TIOCSWINSZ, &(struct winsize){.ws_col = 8});
    log_progress("12345\xc3\xa9 678");
    cr_expect_str_eq(on_terminal(master), "\r\033[K12345\xc3\xa9", "wider than the terminal");
    end_capture();
}

Test(log, levels_by_name)
{
    log_level l = LOG_INFO;

    cr_assert(log_level_parse("error", &l) && l == LOG_ERROR);
    cr_assert(log_level_parse("debug", &l) && l == LOG_DEBUG);
    cr_assert_not(log_level_parse("Debug", &l));
    cr_assert_not(log_level_parse("", &l));
    cr_assert_eq(l, LOG_DEBUG);
}

Test(log, very_long_messages_are_one_line)
{
    static char text[100000];

    memset(text, '\x01', sizeof text - 1);
    begin_capture();
    log_setup(&(log_options){.level = LOG_INFO, .json = true});
    log_info("%s", text);
    end_capture();
    size_t n = strlen(output);
    cr_assert(n > 2000 && strchr(output, '\n') == output + n - 1);
    json_t *v = json_loads(output, 0, NULL);
    cr_assert_not_null(v);
    json_decref(v);
}

static void *many_lines(void *arg)
{
    for (int i = 0; i < 1000; i++) log_info("%s", (const char *)arg);
    return NULL;
}

Test(log, lines_of_threads_do_not_mix)
{
    pthread_t a, b;
    size_t n = 0;

    begin_capture();
    log_setup(&(log_options){.level = LOG_INFO});
    pthread_create(&a, NULL, many_lines, "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa");
    pthread_create(&b, NULL, many_lines, "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb");
    pthread_join(a, NULL);
    pthread_join(b, NULL);
    end_capture();
    for (char *p = output, *end; (end = strchr(p, '\n')); p = end + 1, n++)
        cr_assert_eq(end - p, 27 + 40, "a line of %zu bytes", (size_t)(end - p));
    cr_assert_eq(n, 2000);
}
