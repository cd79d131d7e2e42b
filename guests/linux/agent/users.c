/* Users and groups, by the files of the root directory: names, numbers, and what follows from them. */
#include "processes.h"
#include "system.h"

#define FILE_MOST (1u << 20)
#define GROUPS_MOST 1024

static uint32_t groups[GROUPS_MOST];
static uint32_t group_count;

static char *content_of(const char *path)
{
    char *content = allocate(FILE_MOST + 1);
    long file = open_file(path, READ_ONLY | NONBLOCK, 0), size;

    if (!content)
        return 0;
    size = file < 0 ? 0 : read_all((int)file, content, FILE_MOST);
    if (file >= 0)
        call(SYS_CLOSE, file, 0, 0, 0, 0);
    content[size < 0 ? 0 : size] = 0;
    return content;
}

/* Split a line at colons, and end it. Returns the next line. Fields that are missing are empty. */
static char *split(char *line, char **fields, uint32_t count)
{
    char *at = line;

    for (uint32_t field = 0; field < count; field++) {
        fields[field] = at;
        while (*at && *at != '\n' && *at != ':')
            at++;
        if (*at == ':' && field + 1 < count) {
            *at++ = 0;
        } else if (*at == ':') {
            *at++ = 0;
            while (*at && *at != '\n')
                at++;
        }
    }
    if (*at)
        *at++ = 0;
    return at;
}

static int is_number(const char *text, uint32_t *value)
{
    return *text && read_decimal(text, value) == length(text);
}

static void add_group(uint32_t group)
{
    for (uint32_t at = 0; at < group_count; at++)
        if (groups[at] == group)
            return;
    if (group_count < GROUPS_MOST)
        groups[group_count++] = group;
}

static int is_member(const char *members, const char *name)
{
    uint32_t size = length(name);

    while (size && *members) {
        if (!compare(members, name, size > length(members) ? length(members) + 1 : size) &&
            (members[size] == ',' || !members[size]))
            return 1;
        while (*members && *members++ != ',')
            ;
    }
    return 0;
}

/* Find a group, by its name or number. Add all groups that have `member` with `adds`. */
static long find_group(const char *wanted, const char *member, uint32_t *found)
{
    char *line = content_of("/etc/group"), *fields[4];
    uint32_t number;
    int is_known = *wanted ? is_number(wanted, found) : 1;

    if (!line)
        return -ENOMEM;
    while (*line) {
        line = split(line, fields, 4);
        if (!is_number(fields[2], &number))
            continue;
        if (*wanted && is_same(fields[0], wanted)) {
            *found = number;
            is_known = 1;
        }
        if (member && is_member(fields[3], member))
            add_group(number);
    }
    return is_known ? 0 : -ESRCH;
}

/* Find a user by its name or number. `name` stays empty for a number that nobody has. */
static long find_user(const char *wanted, char **name, uint32_t *uid, uint32_t *gid, const char **home)
{
    char *line = content_of("/etc/passwd"), *fields[7];
    uint32_t number, group, wanted_number;
    int is_numeric = is_number(wanted, &wanted_number);

    if (!line)
        return -ENOMEM;
    while (*line) {
        line = split(line, fields, 7);
        if (!is_number(fields[2], &number) || !is_number(fields[3], &group))
            continue;
        if (is_same(fields[0], wanted) || (is_numeric && number == wanted_number)) {
            *name = fields[0];
            *uid = number;
            *gid = group;
            *home = *fields[5] ? fields[5] : "/";
            return 0;
        }
    }
    *uid = wanted_number;
    return is_numeric ? 0 : -ENOENT;
}

long become_user(char *user, const char *end, const char **home)
{
    uint32_t uid = 0, gid = 0, group;
    char *name = "", *group_name = 0;
    long answer;

    for (char *at = user; *at; at++)
        if (*at == ':') {
            *at = 0;
            group_name = at + 1;
        }
    *home = "/";
    answer = find_user(*user ? user : "0", &name, &uid, &gid, home);
    if (answer >= 0 && group_name && *group_name)
        answer = find_group(group_name, 0, &gid);
    else if (answer >= 0)
        answer = find_group("", name, &group);
    for (char *more = next_text(group_name ? group_name : user); answer >= 0 && more < end; more = next_text(more)) {
        answer = *more ? find_group(more, 0, &group) : 0; /* an empty one is the user's own group */
        add_group(*more ? group : gid);
    }
    if (answer >= 0)
        answer = call(SYS_SETGROUPS, (long)group_count, (long)groups, 0, 0, 0);
    if (answer >= 0)
        answer = call(SYS_SETGID, (long)gid, 0, 0, 0, 0);
    return answer < 0 ? answer : call(SYS_SETUID, (long)uid, 0, 0, 0, 0);
}
